"""A process that reads what waits: `python -m tests.retrieval.ingesting DIRECTORY`, to be killed. Prints each batch that it encodes.

A file `started.PID` in the directory says that it has begun.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.retrieval.tiers import QuickEncoder, make_tier


def main() -> None:
    encoder = QuickEncoder()

    def say(texts: Sequence[str]) -> None:
        sys.stdout.write("\x1f".join(texts).replace("\n", " ") + "\n")
        sys.stdout.flush()

    encoder.before = say
    tier = make_tier(Path(sys.argv[1]), encoder, clock=time.time, files={"ingest_threads": 2})
    tier.start()
    (Path(sys.argv[1]) / f"started.{os.getpid()}").touch()
    sys.stdin.read()  # until the parent closes it
    tier.close()


if __name__ == "__main__":
    main()
