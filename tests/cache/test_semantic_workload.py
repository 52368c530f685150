"""Random tenants, fingerprints and operations against the semantic cache."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache.config import SemanticConfig
from cache.entry import Entry, Vector
from cache.semantic import Match, SemanticCache
from cache.stores.base import EntryStore
from cache.stores.memory import MemoryEntryStore
from cache.stores.sql import open_store
from cache.vectors.faiss_index import FaissIndex
from cache.vectors.memory import MemoryIndex
from tests.cache.entries import Clock, make_entry, unit

NAMESPACES = ["a", "b", "ab", "A"]
FINGERPRINTS = ["x", "y", "ax"]
DIRECTIONS = [unit(*direction) for direction in np.random.default_rng(2).standard_normal((40, 3))]


class Workload:
    """Random operations on a cache, each search compared with what a plain list of entries says."""

    def __init__(self, store: EntryStore, fresh_index: type[FaissIndex] | type[MemoryIndex], seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.clock = Clock()
        self.store, self.fresh_index = store, fresh_index
        self.truth: dict[tuple[str, str], Entry] = {}
        self.lookups = self.matches = 0
        self.restart()

    def restart(self) -> None:
        """As after a crash: the index is lost."""
        config = SemanticConfig(threshold=0.97, top_k=100)
        self.cache = SemanticCache(self.store, self.fresh_index(3), self.clock, config)
        self.cache.rebuild()

    def pick(self) -> tuple[str, str, str, Vector]:
        places = (NAMESPACES, FINGERPRINTS, [f"k{number}" for number in range(12)])
        namespace, fingerprint, key = (names[self.random.integers(len(names))] for names in places)
        return namespace, fingerprint, key, DIRECTIONS[self.random.integers(len(DIRECTIONS))]

    def insert(self) -> None:
        namespace, fingerprint, key, vector = self.pick()
        life = float(self.random.integers(1, 60))
        place = {"namespace": namespace, "fingerprint": fingerprint, "exact_key": key}
        entry = make_entry(**place, vector=vector, created_at=self.clock.now, expires_at=self.clock.now + life)
        self.cache.insert(entry)
        self.truth[namespace, key] = entry

    def search(self) -> None:
        namespace, fingerprint, _, vector = self.pick()
        found = self.cache.search(namespace, fingerprint, vector)
        partition = [entry for entry in self.truth.values() if (entry.namespace, entry.fingerprint) == (namespace, fingerprint)]
        live = [float(entry.vector @ vector) for entry in partition if entry.vector is not None and entry.live(self.clock.now)]
        best = max(live, default=-1.0)
        assert isinstance(found, Match) == (best >= 0.97)
        if isinstance(found, Match):
            assert self.truth[namespace, found.entry.exact_key] == found.entry
            assert found.entry.fingerprint == fingerprint
            assert found.similarity == pytest.approx(best, abs=2e-6)
            self.matches += 1
        self.lookups += 1

    def find_exact(self) -> None:
        namespace, _, key, _ = self.pick()
        entry = self.truth.get((namespace, key))
        expected = entry if entry is not None and entry.live(self.clock.now) else None
        assert self.cache.find_exact(namespace, key) == expected
        self.lookups += 1

    def wait(self) -> None:
        self.clock.now += float(self.random.integers(1, 20))

    def lose_expired_rows(self) -> None:
        """Rows go behind the index's back."""
        self.store.evict(10_000, self.clock.now)

    def run(self, lookups: int) -> None:
        operations = [self.insert, self.search, self.find_exact, self.wait, self.lose_expired_rows, self.restart]
        weights = [0.2, 0.65, 0.12, 0.02, 0.008, 0.002]
        while self.lookups < lookups:
            for choice in self.random.choice(len(operations), 1000, p=weights):
                operations[choice]()


@pytest.fixture(params=["memory", "sqlite and faiss"])
def workload(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workload]:
    on_disk = request.param != "memory"
    store = open_store(f"sqlite:///{tmp_path}/cache.sqlite") if on_disk else MemoryEntryStore()
    yield Workload(store, FaissIndex if on_disk else MemoryIndex, seed=3)
    store.close()


def test_no_lookup_of_twenty_thousand_crosses_namespace_or_fingerprint(workload: Workload) -> None:
    workload.run(20_000)
    assert workload.matches > 1000
