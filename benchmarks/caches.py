"""Caches as the application opens them, for benchmarks: on any stores, with a verifier that is sure of every pair."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cache.semantic import Parts, SemanticCache
from cache.stores.base import ALL
from cache.stores.sql import open_database
from cache.vectors.base import VectorIndex
from cache.vectors.factory import open_index
from cache.vectors.faiss_index import FaissIndex
from cache.verifiers.base import Pair


class SureVerifier:
    """Takes every pair that the guards let through for the same."""

    name = "sure"
    settles: frozenset[str] = frozenset()

    def probabilities(self, pairs: Sequence[Pair]) -> list[float | None]:
        return [0.99] * len(pairs)


def add_stores(made: argparse.ArgumentParser) -> None:
    made.add_argument("--database", default=None, help="as cache.database_url in the configuration; default: SQLite")
    made.add_argument("--vectors", default="faiss:", help="as cache.vector_url in the configuration")


def stores(options: argparse.Namespace) -> str:
    """What the options name, without addresses and passwords."""
    return f"{(options.database or 'sqlite').split(':')[0]} + {options.vectors.split(':')[0]}"


@contextmanager
def opened(
    options: argparse.Namespace, name: str, dimension: int, namespaces: Sequence[str], clock: Callable[[], float] = time.time
) -> Iterator[tuple[SemanticCache, VectorIndex]]:
    """A cache and its index, which is called `name`, for these namespaces only: what an earlier run has left in them is removed first."""
    with TemporaryDirectory() as directory:
        database = open_database(options.database or f"sqlite:///{Path(directory)}/cache.db")
        index = open_index(options.vectors, name, dimension)
        index.count()  # makes what is missing, which takes longer than a search may
        cache = SemanticCache(Parts.on(database, index, SureVerifier(), name), clock)
        try:
            _empty(cache, namespaces)
            yield cache, index
        finally:
            cache.close()


def settle(index: VectorIndex) -> None:
    """Returns when an index in memory has made its codes, which takes seconds of a core."""
    if isinstance(index, FaissIndex):
        index.settle()


def _empty(cache: SemanticCache, namespaces: Sequence[str]) -> None:
    for namespace in namespaces:
        cache.invalidate(namespace, ALL)
    while cache.collect().invalidated:
        cache.apply()
