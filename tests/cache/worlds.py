"""A semantic cache with a fake verifier and a clock that tests set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.cascade import Query
from cache.entry import Entry, Vector
from cache.policy import Policy
from cache.semantic import Parts, SemanticCache
from cache.stores.base import UNLIMITED, Quota
from cache.stores.evidence import SqlEvidenceStore
from cache.stores.sql import SqlEntryStore
from cache.vectors.base import VectorIndex
from cache.vectors.memory import MemoryIndex
from cache.verifiers.base import Pair
from tests.cache.databases import sqlite_store
from tests.cache.entries import Clock, make_entry, unit

EMBEDDER = "e"
STATIC = Policy(mode="static")


class FakeVerifier:
    """Says what a test has told it of a pair of questions, in either order; 0.99 of any other."""

    name = "fake"
    settles: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.known: dict[frozenset[str], float | None] = {}
        self.asked: list[Pair] = []

    def say(self, a: str, b: str, probability: float | None) -> None:
        self.known[frozenset((a, b))] = probability

    def probabilities(self, pairs: Sequence[Pair]) -> list[float | None]:
        self.asked += pairs
        return [self.known.get(frozenset((pair.question, pair.kept)), 0.99) for pair in pairs]


class CacheWorld:
    """One cache, and what it is made of."""

    def __init__(
        self, directory: Path, index: VectorIndex | None = None, quota: Quota = UNLIMITED, store: SqlEntryStore | None = None
    ) -> None:
        self.clock = Clock()
        self.store = store or sqlite_store(directory)
        self.evidence = SqlEvidenceStore(self.store._database)
        self.index = index or MemoryIndex(2)
        self.verifier = FakeVerifier()
        self.parts = replace(Parts.on(self.store._database, self.index, self.verifier, EMBEDDER), store=self.store)
        self.cache = SemanticCache(self.parts, self.clock, quota)

    def keep(self, text: str | None = "What is a cache?", vector: Vector | None = None, **changes: Any) -> Entry:
        """An entry that the cache has been given; the index does not have it yet."""
        life = {"created_at": self.clock.now, "expires_at": self.clock.now + 100}
        entry = make_entry(**{"text": text, "vector": unit(1, 0) if vector is None else vector, **life, **changes})
        self.cache.insert(entry)
        return entry

    def query(
        self, text: str = "Explain what a cache is", vector: Vector | None = None, namespace: str = "a1", fingerprint: str = "f1"
    ) -> Query:
        return Query(namespace, fingerprint, text, unit(1, 0) if vector is None else vector)
