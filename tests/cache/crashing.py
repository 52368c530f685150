"""Processes that keep, delete and invalidate, and are killed at their n-th step.

`python -m tests.cache.crashing` reads lines of `DATABASE INDEX N`, and forks a process for each. A step is the beginning, the end or the
return of a transaction, and the beginning or the return of a call of the index. The process prints each operation once it has
returned and, if it lives that long, the number of steps; then comes `end` and how it ended.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from cache.database import Database
from cache.semantic import Parts, SemanticCache
from cache.stores.base import tag_scope
from cache.stores.sql import open_database
from cache.vectors.base import VectorIndex
from cache.vectors.factory import open_index
from cache.verifiers.similarity import SimilarityVerifier
from tests.cache.entries import Clock, make_entry, unit

COLLECTION, EMBEDDER = "mygo_crashes", "e"
VECTORS = {"a": unit(1, 0, 0), "b": unit(0, 1, 0), "c": unit(0, 0, 1), "d": unit(1, 1, 0)}
OPERATIONS = [
    *("keep a", "keep b", "apply", "delete a", "apply", "replace b", "apply"),
    *("keep c", "keep d", "apply", "invalidate c", "collect", "apply"),
]


def open_cache(database: str, index: str, clock: Clock) -> tuple[SemanticCache, VectorIndex]:
    opened = open_database(database)
    vectors = open_index(index, COLLECTION, 3)
    return SemanticCache(Parts.on(opened, vectors, SimilarityVerifier(), EMBEDDER), clock), vectors


def run(cache: SemanticCache) -> Iterator[str]:
    """Does the operations, and names each when it has returned."""
    for operation in OPERATIONS:
        name, _, key = operation.partition(" ")
        if name in ("keep", "replace"):
            again = "2" if name == "replace" else ""
            life = {"created_at": 1e6, "expires_at": 2e9, "tags": (key,), "epoch": cache.epoch("a1")}
            cache.insert(make_entry(id=f"{key}{again}", exact_key=key, text=f"{key}{again}", vector=VECTORS[key], **life))
        elif name == "delete":
            cache.delete("a1", [key])
        elif name == "invalidate":
            cache.invalidate("a1", tag_scope(key))
        else:
            getattr(cache, name)()
        yield operation


class _Steps:
    def __init__(self, last: int) -> None:
        self.count = 0
        self._last = last

    def __call__(self) -> None:
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


def _watch(index: VectorIndex, step: _Steps) -> None:
    write = Database.write

    @contextmanager
    def watched(self: Database) -> Iterator[Connection]:
        step()
        with write(self) as connection:
            yield connection
            step()
        step()

    Database.write = watched  # type: ignore[method-assign]
    for name in ("upsert", "delete"):
        setattr(index, name, _watched(getattr(index, name), step))


def _watched(method: Any, step: _Steps) -> Any:
    def call(*args: Any) -> None:
        step()
        method(*args)
        step()

    return call


def _child(database: str, index: str, last: int) -> None:
    cache, vectors = open_cache(database, index, Clock())
    step = _Steps(last)
    _watch(vectors, step)
    for operation in run(cache):
        print(operation, flush=True)  # noqa: T201
    print(step.count, flush=True)  # noqa: T201
    os._exit(0)  # what a crash leaves is looked at, not what an orderly end would


def main() -> None:
    """Forks, because the imports take longer than all else."""
    for line in sys.stdin:
        database, index, last = line.split()
        child = os.fork()
        if child == 0:
            _child(database, index, int(last))
        _, status = os.waitpid(child, 0)
        print("end", os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
