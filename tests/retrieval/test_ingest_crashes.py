"""Real processes, killed in the middle of their work."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from retrieval.chunking import split
from retrieval.documents import Attachment
from retrieval.ingest import BATCH_CHUNKS
from retrieval.tier import RetrievalTier
from tests.retrieval.searching import contents
from tests.retrieval.tiers import Encoder, QuickEncoder, attached, make_tier, upload

ROOT = Path(__file__).parents[2]
LIMIT_S = 120


@contextmanager
def ingesting(directory: Path, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that reads what waits; what it encodes is in `log`. Killed at the end."""
    command = [sys.executable, "-m", "tests.retrieval.ingesting", str(directory)]
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=output)
        try:
            poll((directory / f"started.{process.pid}").exists)
            yield process
        finally:
            process.kill()
            process.wait()
            assert process.stdin
            process.stdin.close()


def poll(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[RetrievalTier]:
    """What a reader in another process sees. Its own threads are not started."""
    tier = make_tier(tmp_path, QuickEncoder())
    yield tier
    tier.close()


def text_of(words: int, seed: str) -> str:
    return " ".join(f"{seed}{number}" for number in range(words))


def parts_of(text: str) -> list[str]:
    return split(text, Encoder().count_tokens, 16, 4)


def seen(tier: RetrievalTier, store_id: str) -> list[str]:
    """The texts of all chunks that a reader may find, in their order."""
    return [chunk.text for chunk in contents(tier.service._store, "a", store_id).chunks]


def test_ten_thousand_chunks_killed_in_the_middle(tmp_path: Path, tier: RetrievalTier) -> None:
    text = text_of(125_000, "w")
    expected = parts_of(text)
    assert len(expected) >= 10_000
    store_id = tier.service.create_store("a", "").id
    file_id = upload(tier, text.encode()).id
    tier.attachments.attach_file("a", store_id, Attachment(file_id))
    log = tmp_path / "encoded"
    with ingesting(tmp_path, log):
        poll(lambda: attached(tier, store_id, file_id).chunks_done >= len(expected) // 2)
    stored = attached(tier, store_id, file_id).chunks_done
    assert len(expected) // 2 <= stored < len(expected)
    assert seen(tier, store_id) == []
    assert tier.service.get_store("a", store_id).version == 0

    lengths = set()
    with ingesting(tmp_path, log):

        def is_read() -> bool:
            lengths.add(len(seen(tier, store_id)))
            return attached(tier, store_id, file_id).status == "completed"

        poll(is_read)
    assert seen(tier, store_id) == expected
    assert lengths <= {0, len(expected)}
    assert tier.service.get_store("a", store_id).version == 1
    encoded = Counter(part for line in log.read_text().splitlines() for part in line.split("\x1f"))
    assert encoded.keys() == set(expected)
    assert encoded.total() <= len(expected) + BATCH_CHUNKS  # what the killed process had encoded and not stored


@pytest.mark.parametrize("seed", range(2))
def test_kills_at_any_moment_lose_and_double_nothing(tmp_path: Path, tier: RetrievalTier, seed: int) -> None:
    rng = random.Random(seed)
    store_id = tier.service.create_store("a", "").id
    texts = {upload(tier, text.encode(), f"{i}.txt").id: text for i in range(6) if (text := text_of(1000 + 1000 * i, f"f{i}w"))}
    tier.attachments.create_batch("a", store_id, [Attachment(each) for each in texts])
    whole = {file_id: parts_of(text) for file_id, text in texts.items()}

    def check() -> bool:
        """Each file is there from its first to its last chunk, or not at all. Whether all are."""
        snapshot = contents(tier.service._store, "a", store_id)
        by_file: dict[str, list[str]] = {}
        for chunk in snapshot.chunks:
            by_file.setdefault(chunk.document_id, []).append(chunk.text)
        assert all(parts == whole[file_id] for file_id, parts in by_file.items())
        assert snapshot.version == len(by_file)
        return len(by_file) == len(whole)

    kills = 0
    while not check():
        kills += 1
        assert kills < 200
        with ingesting(tmp_path, tmp_path / "encoded"):
            # The first ones at once, so that there are some however quick the machine is.
            end = time.monotonic() + rng.uniform(0, 0.02 if kills <= 3 else 0.4)
            while time.monotonic() < end and not check():
                time.sleep(0.005)
    assert kills > 1
    counts = tier.service.get_store("a", store_id).counts
    assert counts == {"completed": len(whole)}
