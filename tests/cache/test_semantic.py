"""The cache as a whole: what is kept is found, by whom and how long."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import indexer, semantic
from cache.entry import Entry
from cache.errors import StoreError, VectorIndexError
from cache.guards.normal import normal_key
from cache.stores.base import ALL, Filter, Known, Quota, model_scope, tag_scope
from cache.vectors.base import VectorRecord
from cache.vectors.faiss_index import FaissIndex
from tests.cache.entries import unit
from tests.cache.worlds import STATIC, CacheWorld


@pytest.fixture
def world(tmp_path: Path) -> CacheWorld:
    return CacheWorld(tmp_path)


def is_found(world: CacheWorld, entry: Entry) -> list[bool]:
    """By its key, by its wording, by its vector."""
    known = world.cache.find(entry.namespace, entry.exact_key, entry.fingerprint, entry.text)
    reworded = world.cache.find(entry.namespace, "another key", entry.fingerprint, entry.text).reworded
    found = world.cache.search(world.query(namespace=entry.namespace, fingerprint=entry.fingerprint), STATIC)
    return [known.exact is not None, reworded is not None, found.entry is not None]


def test_an_entry_is_found_before_the_index_has_it_and_after(world: CacheWorld) -> None:
    entry = world.keep()
    assert is_found(world, entry) == [True] * 3
    assert world.index.count() == 0
    world.cache.apply()
    assert world.index.count() == 1
    assert is_found(world, entry) == [True] * 3


END: dict[str, Callable[[CacheWorld, Entry], Any]] = {
    "delete": lambda world, entry: world.cache.delete(entry.namespace, [entry.id]),
    "all": lambda world, entry: world.cache.invalidate(entry.namespace, ALL),
    "model": lambda world, entry: world.cache.invalidate(entry.namespace, model_scope("m")),
    "tag": lambda world, entry: world.cache.invalidate(entry.namespace, tag_scope("t")),
    "time": lambda world, entry: setattr(world.clock, "now", entry.expires_at),
}


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("end", END.values(), ids=END.keys())
def test_an_ended_entry_is_found_in_no_way(world: CacheWorld, end: Callable[[CacheWorld, Entry], Any], indexed: bool) -> None:
    entry, other = world.keep(tags=("t",)), world.keep(namespace="b2", expires_at=world.clock.now + 1e6)
    if indexed:
        world.cache.apply()
    end(world, entry)
    assert is_found(world, entry) == [False] * 3
    assert is_found(world, other) == [True] * 3
    world.cache.collect()
    world.cache.apply()
    assert world.index.scan("", 9) == [other.id]


def test_a_large_invalidation_is_cleared_away_in_a_few_calls(world: CacheWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "GARBAGE_BATCH", 2)
    monkeypatch.setattr(semantic, "GARBAGE_ROUNDS", 3)
    for number in range(9):
        world.keep(exact_key=f"{number:064x}")
    world.cache.invalidate("a1", ALL)
    assert [world.cache.collect().invalidated for _ in range(3)] == [6, 3, 0]


def test_an_answer_to_a_request_from_before_an_invalidation_is_not_kept_for_use(world: CacheWorld) -> None:
    epoch = world.cache.epoch("a1")
    world.cache.invalidate("a1", ALL)
    assert is_found(world, world.keep(epoch=epoch)) == [False] * 3
    assert is_found(world, world.keep(epoch=world.cache.epoch("a1"))) == [True] * 3


def test_wording_that_never_changes_an_answer_needs_no_comparison(world: CacheWorld) -> None:
    entry = world.keep("What is the capital of France?")
    known = world.cache.find("a1", "another key", "f1", "please, what's the capital of France")
    assert known == Known(0, reworded=world.cache.get("a1", entry.id))
    assert world.cache.find("a1", "another key", "f1", "What is the capital of Spain?") == Known(0)
    assert world.cache.find("a1", "another key", "f2", entry.text) == Known(0)
    assert world.cache.find("a1", "another key", "f1", None) == Known(0)


@pytest.mark.parametrize("long", ["", " and why" * 40], ids=["short", "long"])
def test_a_request_is_found_by_its_key_before_its_wording(world: CacheWorld, long: str) -> None:
    text = f"What is the capital of France{long}?"
    entry, other = world.keep(text, exact_key="1"), world.keep(text, exact_key="2")
    known = [world.cache.find("a1", key, "f1", text) for key in ("1", "2", "3")]
    assert [each.exact and each.exact.id for each in known] == [entry.id, other.id, None]
    assert [each.reworded and each.reworded.id in (entry.id, other.id) for each in known] == [None, None, True]


def test_a_denied_wording_is_not_served(world: CacheWorld) -> None:
    entry = world.keep("What is the capital of France?")
    world.cache.deny("a1", entry.id, "what is the capital of France")
    for text in ("what is the capital of France", "What's the capital of France"):
        assert world.cache.find("a1", "another key", "f1", text) == Known(0)


def test_uses_are_counted_and_written_together(world: CacheWorld) -> None:
    entry = world.keep(tokens=10)
    for _ in range(3):
        is_found(world, entry)
    assert world.cache.stats("a1").hits == 0
    world.cache.flush_uses()
    assert world.cache.stats("a1").hits == 9
    assert world.cache.page("a1", Filter(), "", 9)[0].hits == 9


def test_uses_elsewhere_are_counted_too(world: CacheWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "USES_BATCH", 2)
    entries = [world.keep(f"question {number}") for number in range(5)]
    world.cache.used({entry.id: 2 for entry in entries} | {"gone": 7})
    world.cache.used({entries[0].id: 1})
    world.cache.flush_uses()
    assert sorted(each.hits for each in world.cache.page("a1", Filter(), "", 9)) == [2, 2, 2, 2, 3]


def test_uses_outlive_a_store_that_fails(world: CacheWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    is_found(world, world.keep())

    def fail(*args: object) -> None:
        raise StoreError("down")

    monkeypatch.setattr(world.store, "use", fail)
    with pytest.raises(StoreError):
        world.cache.flush_uses()
    monkeypatch.undo()
    world.cache.flush_uses()
    assert world.cache.stats("a1").hits > 0


def test_quotas_are_enforced_by_the_upkeep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = CacheWorld(tmp_path, quota=Quota(max_entries=3))
    for number in range(5):
        world.keep(tokens=number)
        world.keep(namespace="b2", tokens=number)

    def fail(*args: object) -> None:
        raise StoreError("down")

    monkeypatch.setattr(world.store, "evict", fail)
    with pytest.raises(StoreError):
        world.cache.enforce_quotas()
    monkeypatch.undo()
    assert world.cache.enforce_quotas() == 4
    assert [world.cache.stats(each).entries for each in ("a1", "b2")] == [3, 3]
    assert world.cache.enforce_quotas() == 0


def test_a_load_that_failed_halfway_is_done_again(world: CacheWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        world.keep(exact_key=f"{number:064x}")
    world.cache.apply()
    world.index.delete(world.index.scan("", 9))
    monkeypatch.setattr(indexer, "BATCH", 2)
    upsert, calls = world.index.upsert, iter([True, False])

    def fails_once(records: Sequence[VectorRecord]) -> None:
        upsert(records)
        if not next(calls, True):
            raise VectorIndexError("down")

    monkeypatch.setattr(world.index, "upsert", fails_once)
    with pytest.raises(VectorIndexError):
        world.cache.load()
    assert world.cache.load() == 3
    assert world.index.count() == 3
    assert world.cache.load() == 0


def test_the_soft_end_is_told(world: CacheWorld) -> None:
    world.keep(stale_at=world.clock.now + 5)
    found = world.cache.search(world.query(), STATIC)
    assert found.entry is not None
    assert not found.entry.is_stale(world.clock.now)
    assert found.entry.is_stale(world.clock.now + 5)


@pytest.mark.parametrize("vector", [unit(1, 0, 0), np.array([1.0, 1.0], np.float32), np.array([np.nan, 0], np.float32)])
def test_a_bad_vector_is_refused_before_anything_is_kept(world: CacheWorld, vector: Any) -> None:
    with pytest.raises(VectorIndexError):
        world.keep(vector=vector)
    assert world.store.count() == 0
    with pytest.raises(VectorIndexError):
        world.cache.search(world.query(vector=vector), STATIC)


def test_a_restart_with_an_empty_index_loses_nothing(tmp_path: Path) -> None:
    first = CacheWorld(tmp_path)
    entries = [first.keep(), first.keep()]
    first.cache.apply()
    entries.append(first.keep())
    second = CacheWorld(tmp_path)
    assert second.cache.load() + second.cache.apply() == 3
    assert [is_found(second, entry) for entry in entries] == [[True] * 3] * 3


def test_closing_finishes_what_is_left(tmp_path: Path) -> None:
    world = CacheWorld(tmp_path)
    is_found(world, world.keep())
    world.cache.close()
    again = CacheWorld(tmp_path)
    assert again.store.backlog() == 0
    assert again.cache.stats("a1").hits > 0


def test_a_store_that_does_not_answer_is_an_error_and_never_a_hit(world: CacheWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = world.keep()
    for name in ("look_up", "find_exact", "candidates", "get"):

        def fail(*args: object) -> None:
            raise StoreError("down")

        monkeypatch.setattr(world.store, name, fail)
    for call in (
        lambda: world.cache.find("a1", entry.exact_key, "f1", None),
        lambda: world.cache.find_exact("a1", entry.exact_key),
        lambda: world.cache.search(world.query(), STATIC),
    ):
        with pytest.raises(StoreError):
            call()


@given(st.text(max_size=60))
def test_any_text_has_a_normal_key(text: str) -> None:
    assert len(normal_key(text)) == 64


# Walls


NAMESPACES, FINGERPRINTS = ["a1", "b2", "ab", "a11"], ["f1", "f2", "f11"]
DIRECTIONS = [unit(*direction) for direction in np.random.default_rng(2).standard_normal((12, 2))]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["keep", "delete", "invalidate", "apply", "reconcile", "search", "find", "wait"]),
        st.sampled_from(NAMESPACES),
        st.sampled_from(FINGERPRINTS),
        st.integers(0, 11),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=60)
def test_no_walk_finds_what_is_not_its_own_or_was_ended(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str, int]]
) -> None:
    world = CacheWorld(tmp_path_factory.mktemp("walk"), index=FaissIndex(2))
    kept: dict[str, Entry] = {}
    ended: set[str] = set()
    for step, namespace, fingerprint, number in steps:
        vector = DIRECTIONS[number]
        if step == "keep":
            epoch = world.cache.epoch(namespace)
            for old in [each for each in kept.values() if (each.namespace, each.exact_key) == (namespace, str(number))]:
                ended.add(old.id)
            entry = world.keep(vector=vector, namespace=namespace, fingerprint=fingerprint, exact_key=str(number), epoch=epoch)
            kept[entry.id] = entry
        elif step == "delete":
            ids = [each.id for each in list(kept.values())[number : number + 2]]
            world.cache.delete(namespace, ids)
            ended |= {each for each in ids if kept[each].namespace == namespace}
        elif step == "invalidate":
            world.cache.invalidate(namespace, ALL)
            ended |= {each.id for each in kept.values() if each.namespace == namespace}
        elif step == "apply":
            world.cache.apply()
        elif step == "reconcile":
            world.cache.reconcile()
        elif step == "wait":
            world.clock.now += 31
        found = world.cache.search(world.query(vector=vector, namespace=namespace, fingerprint=fingerprint), STATIC)
        hits = [found.entry] if found.entry else []
        known = world.cache.find(namespace, str(number), fingerprint, "What is a cache?")
        for hit in (*hits, *(each for each in (known.exact, known.reworded) if each)):
            assert hit.namespace == namespace
            assert hit.fingerprint == fingerprint or hit is known.exact
            assert hit.id not in ended
            assert world.clock.now < hit.expires_at
    world.cache.close()
