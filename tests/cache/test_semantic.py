from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from cache.config import SemanticConfig
from cache.entry import Entry, Vector
from cache.errors import StoreError, VectorIndexError
from cache.semantic import Match, Miss, MissReason, SemanticCache
from cache.stores.base import EntryStore
from cache.stores.memory import MemoryEntryStore
from cache.vectors.base import VectorIndex
from cache.vectors.memory import MemoryIndex
from tests.cache.entries import Clock, make_entry, unit

CONFIG = SemanticConfig(threshold=0.9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> MemoryEntryStore:
    return MemoryEntryStore()


@pytest.fixture
def index() -> MemoryIndex:
    return MemoryIndex(2)


@pytest.fixture
def cache(store: EntryStore, index: VectorIndex, clock: Clock) -> SemanticCache:
    return SemanticCache(store, index, clock, CONFIG)


def test_the_closest_question_within_the_threshold_is_a_match(cache: SemanticCache) -> None:
    near, nearer = make_entry(vector=unit(10, 3)), make_entry(vector=unit(10, 1))
    cache.insert(near)
    cache.insert(nearer)
    found = cache.search("n", "f", unit(1, 0))
    assert isinstance(found, Match)
    assert found.entry == nearer
    assert found.similarity == pytest.approx(10 / 101**0.5, abs=1e-6)


def test_the_reasons_of_a_miss(cache: SemanticCache, store: EntryStore) -> None:
    assert cache.search("n", "f", unit(1, 0)) == Miss(MissReason.EMPTY)
    entry = make_entry(vector=unit(3, 4))
    cache.insert(entry)
    assert cache.search("n", "f", unit(1, 0)) == Miss(MissReason.BELOW_THRESHOLD, 0.6)
    assert cache.search("m", "f", unit(3, 4)) == Miss(MissReason.EMPTY)
    assert cache.search("n", "g", unit(3, 4)) == Miss(MissReason.EMPTY)
    store.evict(0, 0)
    assert cache.search("n", "f", unit(3, 4)) == Miss(MissReason.STALE, 1.0)


def test_a_similarity_of_the_threshold_is_a_match(cache: SemanticCache, store: EntryStore, index: VectorIndex, clock: Clock) -> None:
    cache.insert(make_entry(vector=unit(3, 4)))
    assert isinstance(cache.search("n", "f", unit(3, 4)), Match)
    strict = SemanticCache(store, index, clock, SemanticConfig(threshold=1))
    assert isinstance(strict.search("n", "f", unit(3, 4)), Match)


def test_an_expired_entry_is_a_miss_from_its_second_on(cache: SemanticCache, clock: Clock) -> None:
    entry = make_entry(vector=unit(1, 0), expires_at=clock.now + 60)
    cache.insert(entry)
    clock.now += 59.9
    assert cache.find_exact("n", entry.exact_key) == entry
    assert isinstance(cache.search("n", "f", unit(1, 0)), Match)
    clock.now += 0.1
    assert cache.find_exact("n", entry.exact_key) is None
    assert cache.search("n", "f", unit(1, 0)) == Miss(MissReason.STALE, 1.0)


def test_a_live_neighbour_serves_when_a_closer_one_is_stale_and_the_stale_vector_goes(
    cache: SemanticCache, index: VectorIndex, clock: Clock
) -> None:
    cache.insert(make_entry(vector=unit(1, 0), expires_at=clock.now + 1))
    live = make_entry(vector=unit(10, 1))
    cache.insert(live)
    clock.now += 1
    found = cache.search("n", "f", unit(1, 0))
    assert isinstance(found, Match)
    assert found.entry == live
    assert len(index) == 1


def test_stale_vectors_cannot_crowd_out_a_live_one_for_long(store: EntryStore, index: VectorIndex, clock: Clock) -> None:
    cache = SemanticCache(store, index, clock, SemanticConfig(threshold=0.9, top_k=3))
    for _ in range(3):
        cache.insert(make_entry(vector=unit(1, 0), expires_at=clock.now + 1))
    cache.insert(make_entry(vector=unit(10, 1)))
    clock.now += 1
    assert cache.search("n", "f", unit(1, 0)) == Miss(MissReason.STALE, 1.0)
    assert isinstance(cache.search("n", "f", unit(1, 0)), Match)


@pytest.mark.parametrize("lie", [{"namespace": "m"}, {"fingerprint": "g"}])
def test_an_index_that_names_another_partitions_entry_is_not_believed(
    cache: SemanticCache, store: EntryStore, index: VectorIndex, lie: dict[str, str]
) -> None:
    entry = make_entry(vector=unit(1, 0), **lie)
    store.put(entry)
    index.upsert("n", "f", entry.id, unit(1, 0))
    assert cache.search("n", "f", unit(1, 0)) == Miss(MissReason.STALE, 1.0)


def test_a_replaced_entry_is_not_found_by_its_old_question(cache: SemanticCache, index: VectorIndex) -> None:
    old = make_entry(exact_key="k", vector=unit(1, 0))
    new = make_entry(exact_key="k", vector=unit(0, 1))
    cache.insert(old)
    cache.insert(new)
    assert cache.find_exact("n", "k") == new
    assert isinstance(cache.search("n", "f", unit(1, 0)), Miss)
    assert isinstance(cache.search("n", "f", unit(0, 1)), Match)
    cache.insert(replace(new, vector=None))
    assert len(index) == 0


def test_an_entry_without_a_vector_is_found_by_its_key_only(cache: SemanticCache, index: VectorIndex) -> None:
    entry = make_entry(vector=None, text=None)
    cache.insert(entry)
    assert cache.find_exact("n", entry.exact_key) == entry
    assert cache.find_exact("m", entry.exact_key) is None
    assert len(index) == 0


def test_a_bad_vector_is_refused_before_anything_is_kept(cache: SemanticCache, store: EntryStore) -> None:
    for vector in (unit(1, 0, 0), np.array([np.nan, 1], np.float32), np.array([2, 0], np.float32)):
        with pytest.raises(VectorIndexError):
            cache.insert(make_entry(vector=vector))
    assert store.count() == 0


def test_the_least_recently_used_go_past_the_limit_from_both(store: EntryStore, index: VectorIndex, clock: Clock) -> None:
    cache = SemanticCache(store, index, clock, CONFIG, max_entries=3)
    by_key, by_question, unused = (make_entry(vector=unit(*direction)) for direction in ((1, 0), (0, 1), (-1, 0)))
    for entry in (by_key, by_question, unused):
        cache.insert(entry)
    clock.now += 1
    cache.find_exact("n", by_key.exact_key)
    cache.search("n", "f", unit(0, 1))
    cache.insert(make_entry(vector=unit(0, -1), created_at=clock.now))
    assert cache.find_exact("n", unused.exact_key) is None
    assert cache.search("n", "f", unit(-1, 0)) == Miss(MissReason.BELOW_THRESHOLD, 0.0)
    assert cache.find_exact("n", by_key.exact_key) == by_key
    assert cache.find_exact("n", by_question.exact_key) == by_question
    assert store.count() == len(index) == 3


def test_the_limit_is_kept_to_within_one_in_a_hundred(store: EntryStore, index: VectorIndex, clock: Clock) -> None:
    cache = SemanticCache(store, index, clock, CONFIG, max_entries=200)
    for _ in range(450):
        cache.insert(make_entry(vector=unit(1, 0)))
        assert store.count() <= 202
    assert len(index) == store.count() >= 200


def test_evict_forgets_what_has_expired(cache: SemanticCache, store: EntryStore, index: VectorIndex, clock: Clock) -> None:
    cache.insert(make_entry(vector=unit(1, 0), expires_at=clock.now + 1))
    cache.insert(make_entry(vector=unit(1, 0)))
    clock.now += 1
    assert cache.evict() == 1
    assert store.count() == len(index) == 1


class BrokenIndex(MemoryIndex):
    """The process dies, or the index does not answer, between the store and the index."""

    def upsert(self, namespace: str, fingerprint: str, entry_id: str, vector: Vector) -> None:
        raise VectorIndexError("the index did not answer")


def test_a_crash_between_store_and_index_costs_a_miss_until_the_index_is_rebuilt(store: EntryStore, clock: Clock) -> None:
    entry = make_entry(vector=unit(1, 0))
    with pytest.raises(VectorIndexError):
        SemanticCache(store, BrokenIndex(2), clock, CONFIG).insert(entry)
    cache = SemanticCache(store, MemoryIndex(2), clock, CONFIG)
    assert cache.find_exact("n", entry.exact_key) == entry
    assert cache.search("n", "f", unit(1, 0)) == Miss(MissReason.EMPTY)
    assert cache.rebuild() == 1
    assert isinstance(cache.search("n", "f", unit(1, 0)), Match)


def test_rebuild_takes_live_entries_with_a_vector_that_fits(store: EntryStore, index: VectorIndex, clock: Clock) -> None:
    kept = [make_entry(vector=unit(1, number)) for number in range(3)]
    left_out = [
        make_entry(),
        make_entry(vector=unit(1, 0), expires_at=clock.now),
        make_entry(vector=unit(1, 0, 0)),
        make_entry(vector=np.array([np.nan, 0], np.float32)),
    ]
    for entry in (*kept, *left_out):
        store.put(entry)
    cache = SemanticCache(store, index, clock, CONFIG)
    assert cache.rebuild() == cache.rebuild() == len(index) == 3


class ReadOnlyStore(MemoryEntryStore):
    """A store whose disk is full."""

    def touch(self, entry_id: str, now: float) -> None:
        raise StoreError("the disk is full")


def test_a_use_that_cannot_be_recorded_is_still_a_hit(index: VectorIndex, clock: Clock) -> None:
    cache = SemanticCache(ReadOnlyStore(), index, clock, CONFIG)
    entry = make_entry(vector=unit(1, 0))
    cache.insert(entry)
    assert cache.find_exact("n", entry.exact_key) == entry
    assert isinstance(cache.search("n", "f", unit(1, 0)), Match)


class SilentStore(MemoryEntryStore):
    """A store that does not answer."""

    def get_live(self, namespace: str, fingerprint: str, ids: Sequence[str], now: float) -> list[Entry]:
        raise StoreError("no answer")


def test_a_store_that_does_not_answer_is_an_error_and_never_a_hit(index: VectorIndex, clock: Clock) -> None:
    cache = SemanticCache(SilentStore(), index, clock, CONFIG)
    cache.insert(make_entry(vector=unit(1, 0)))
    with pytest.raises(StoreError):
        cache.search("n", "f", unit(1, 0))
    assert len(index) == 1
