"""Kill -9 at every step of keep, apply, delete, replace, invalidate and collect: nothing wrong is served, nothing ended comes back."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache.indexer import HOLD_S, Differences
from cache.vectors.factory import open_index
from tests.cache.crashing import COLLECTION, OPERATIONS, open_cache
from tests.cache.databases import MARIADB, empty_mariadb, milvus_url
from tests.cache.entries import Clock

ROOT = Path(__file__).parents[2]
Places = tuple[str, str]


def embedded(directory: Path, number: int) -> Places:
    return f"sqlite:///{directory}/{number}.db", "memory:"


def servers(directory: Path, number: int) -> Places:
    url = milvus_url()
    empty_mariadb().close()
    index = open_index(url, COLLECTION, 3)
    index.delete(index.scan("", 99))
    index.close()
    return MARIADB, url


class Crashing:
    """The process that forks others."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.cache.crashing"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, places: Places, step: int) -> list[str]:
        """What had returned when the process was killed at this step."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{' '.join(places)} {step}\n")
        self._process.stdin.flush()
        lines = [self._line()]
        while not lines[-1].startswith("end"):
            lines.append(self._line())
        assert lines.pop() == f"end {-9 if step else 0}"
        return lines

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process has ended"
        return line.strip()

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def crashing() -> Iterator[Crashing]:
    process = Crashing()
    yield process
    process.close()


def expected(returned: list[str]) -> dict[str, set[str | None]]:
    """The ids that may be served for each key: what has returned holds; what had begun may have happened or not."""
    begun = OPERATIONS[: len(returned) + 1]
    allowed: dict[str, set[str | None]] = {key: {None} for key in "abcd"}
    for number, operation in enumerate(begun):
        name, _, key = operation.partition(" ")
        if not key:
            continue
        after = {"keep": key, "replace": f"{key}2"}.get(name)
        allowed[key] = {after} if number < len(returned) else allowed[key] | {after}
    return allowed


def check(places: Places, returned: list[str]) -> None:
    clock = Clock()
    clock.now += HOLD_S
    cache, index = open_cache(*places, clock)
    if places[1] == "memory:":
        cache.load()
    served = {key: found.id if (found := cache.find_exact("a1", key)) else None for key in "abcd"}
    for key, ids in expected(returned).items():
        assert served[key] in ids, (key, returned)
    cache.apply()
    assert cache.reconcile() == Differences(compared=sum(each is not None for each in served.values()))
    cache.collect()  # what was invalidated is not servable, but leaves the index only now
    cache.apply()
    assert index.scan("", 99) == sorted(each for each in served.values() if each)
    cache.close()


@pytest.mark.parametrize("places", [embedded, servers], ids=["sqlite", "mariadb+milvus"])
def test_a_writer_may_be_killed_at_every_step(crashing: Crashing, tmp_path: Path, places: Callable[[Path, int], Places]) -> None:
    *whole, steps = crashing.run(places(tmp_path, 0), 0)
    assert whole == OPERATIONS
    assert int(steps) > 40
    for step in range(1, int(steps) + 1):
        here = places(tmp_path, step)
        check(here, crashing.run(here, step))
