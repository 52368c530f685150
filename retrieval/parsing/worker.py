"""The process that reads one file that may be hostile: `python -m retrieval.parsing.worker`, then `Task`'s values as JSON.

It limits itself in memory and time, and says on its standard output what it has found: JSON with `text`, or with `error` and `code`.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from retrieval.errors import ParseError
from retrieval.parsing.kinds import Kind
from retrieval.parsing.text import decode, require_text


class Task(NamedTuple):
    """What the process is to do. `seconds` and `memory_bytes` are its limits."""

    path: str
    kind: Kind
    max_bytes: int
    max_pages: int
    seconds: int
    memory_bytes: int


def limit(task: Task) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (task.memory_bytes, task.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (task.seconds, task.seconds))
    signal.alarm(task.seconds)  # also when whoever waits for it is gone
    os.nice(5)


def read(task: Task) -> str:
    """Imports only what this kind needs: importing is most of the time that a short file takes."""
    path = Path(task.path)
    if task.kind == "pdf":
        from retrieval.parsing.pdf import read_pdf

        return read_pdf(path, task.max_pages, task.max_bytes)
    from retrieval.parsing.html import read_html

    return read_html(decode(path.read_bytes()), task.max_bytes)


def main() -> None:
    task = Task(*json.loads(sys.argv[1]))
    limit(task)
    try:
        answer = {"text": require_text(read(task), task.max_bytes)}
    except ParseError as error:
        answer = {"error": str(error), "code": error.code}
    except (MemoryError, RecursionError):
        answer = {"error": "reading the file takes too much memory", "code": "invalid_file"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
