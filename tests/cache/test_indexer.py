"""The index follows the store, whatever happens in between."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import booleans, integers, sampled_from

from cache.embedders.fake import HashedWordsEmbedder
from cache.entry import Entry
from cache.errors import StoreError, VectorIndexError
from cache.indexer import HOLD_S, Differences, Indexer
from cache.overlay import Overlay
from cache.stores.base import ALL, Change
from cache.vectors.base import VectorRecord
from cache.vectors.memory import MemoryIndex
from tests.cache.databases import sqlite_store
from tests.cache.entries import Clock, make_entry, unit


class World:
    """A store, an index in memory, and the indexer between them."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.store = sqlite_store(directory)
        self.index = MemoryIndex(3)
        self.overlay = Overlay(self.clock)
        self.indexer = Indexer(self.store, self.index, self.overlay, "e", self.clock)

    def put(self, **changes: object) -> Entry:
        entry = make_entry(**{"vector": unit(1, 0, 0), "embedder": "e", "expires_at": self.clock.now + 1000, **changes})
        self.store.put(entry)
        return entry

    @property
    def held(self) -> list[str]:
        return self.index.scan("", 1000)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_is_put_is_indexed_and_what_is_deleted_is_not(world: World) -> None:
    kept, gone = world.put(), world.put()
    assert world.indexer.apply() == 2
    assert world.held == [kept.id, gone.id]
    world.store.delete("a1", [gone.id], world.clock.now)
    assert world.indexer.apply() == 1
    assert world.held == [kept.id]
    assert world.indexer.apply() == 0


def test_a_vector_of_another_embedder_is_not_indexed(world: World) -> None:
    world.put(embedder="other", vector=unit(1, 0))
    world.indexer.apply()
    assert world.held == []


def test_the_overlay_lets_go_of_what_the_index_shows(world: World) -> None:
    entry = world.put()
    assert entry.vector is not None
    world.overlay.add(VectorRecord(entry.id, entry.namespace, entry.fingerprint, entry.vector))
    world.indexer.apply()
    world.overlay.search("a1", "f1", unit(1, 0, 0), 1)
    assert len(world.overlay) == 0


def test_an_empty_index_is_loaded(world: World) -> None:
    entries = [world.put() for _ in range(3)]
    world.indexer.apply()
    world.index.delete([entry.id for entry in entries])
    world.put()
    assert world.indexer.load() == 3, "the fourth is in the outbox still"
    assert world.held == [entry.id for entry in entries]


def test_differences_are_found_mended_and_gone(world: World) -> None:
    entries = [world.put() for _ in range(5)]
    world.indexer.apply()
    assert world.indexer.reconcile() == Differences(compared=5)
    world.index.delete([entries[0].id, entries[4].id])
    world.index.upsert([VectorRecord(each, "a1", "f1", unit(0, 1, 0)) for each in ("0-orphan", "zz-orphan")])
    assert world.indexer.reconcile() == Differences(compared=5, missing=2, orphaned=2)
    world.indexer.apply()
    assert world.indexer.reconcile() == Differences(compared=5)
    assert world.held == [entry.id for entry in entries]


def test_what_is_under_way_is_no_difference(world: World) -> None:
    dead, live = world.put(), world.put()
    world.indexer.apply()
    world.put()
    world.store.delete("a1", [dead.id], world.clock.now)
    assert world.indexer.reconcile() == Differences(compared=1)
    assert live.id in world.held


@pytest.mark.parametrize("entries", [255, 256, 257, 600])
def test_pages_of_store_and_index_meet(world: World, entries: int) -> None:
    ids = [world.put().id for _ in range(entries)]
    world.indexer.apply()
    world.index.delete(ids[::7])
    world.index.upsert([VectorRecord(f"{each}-", "a1", "f1", unit(0, 1, 0)) for each in ids[::5]])
    found = world.indexer.reconcile()
    assert (found.compared, found.missing, found.orphaned) == (entries, len(ids[::7]), len(ids[::5]))
    world.indexer.apply()
    assert world.held == ids


def test_another_embedder_fills_its_index_and_nothing_is_lost(world: World) -> None:
    entries = [world.put(text=f"text {number}", embedder="old", vector=unit(1, 0)) for number in range(70)]
    embedder = HashedWordsEmbedder()
    index = MemoryIndex(embedder.dimension)
    indexer = Indexer(world.store, index, world.overlay, embedder.name, world.clock)
    indexer.apply()
    assert indexer.embed_again(embedder) == 70
    indexer.apply()
    assert index.count() == 70
    assert indexer.embed_again(embedder) == 0
    found = index.search("a1", "f1", embedder.embed(["text 7"])[0], 1)
    assert found[0].id == entries[7].id


# Crashes


class CrashError(Exception):
    """The process ends here."""


class CrashingIndex(MemoryIndex):
    """Ends the process before or after one of its calls."""

    def __init__(self, at: int, after: bool) -> None:
        super().__init__(3)
        self._left, self._after = at, after

    def _step(self, after: bool) -> None:
        if after == self._after:
            self._left -= 1
            if self._left == 0:
                raise CrashError

    def upsert(self, records: Sequence[VectorRecord]) -> None:
        self._step(False)
        super().upsert(records)
        self._step(True)

    def delete(self, ids: Sequence[str]) -> None:
        self._step(False)
        super().delete(ids)
        self._step(True)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_worker_that_ends_at_any_step_costs_nothing_but_time(tmp_path: Path, at: int, after: bool) -> None:
    world = World(tmp_path)
    index = CrashingIndex(at, after)
    indexer = Indexer(world.store, index, world.overlay, "e", world.clock)
    kept, gone = world.put(), world.put()
    for step in (lambda: None, lambda: world.store.delete("a1", [gone.id], world.clock.now)):
        step()
        try:
            indexer.apply()
        except CrashError:
            assert indexer.apply() == 0, "the line is the dead worker's still"
            world.clock.now += HOLD_S
            indexer.apply()
    assert index.scan("", 10) == [kept.id]
    assert world.store.backlog() == 0
    assert indexer.reconcile() == Differences(compared=1)


@pytest.mark.parametrize("error", [StoreError, VectorIndexError])
def test_a_failure_is_the_callers_to_try_again(world: World, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    entry = world.put()

    def fail(*args: object) -> None:
        raise error("down")

    broken = world.store if error is StoreError else world.index
    monkeypatch.setattr(broken, "confirm" if error is StoreError else "upsert", fail)
    with pytest.raises(error):
        world.indexer.apply()
    monkeypatch.undo()
    world.clock.now += HOLD_S
    world.indexer.apply()
    assert world.held == [entry.id]


class Workers(RuleBasedStateMachine):
    """Two workers whose steps interleave in any order with changes of the store: in the end index and store agree."""

    @initialize()
    def start(self) -> None:
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.world = World(Path(self.directory.name))
        self.claimed: dict[int, list[Change]] = {}
        self.written: dict[int, bool] = {}
        self.entries: list[Entry] = []

    @rule(key=integers(0, 3))
    def put(self, key: int) -> None:
        self.entries.append(self.world.put(exact_key=f"key-{key}", epoch=self.world.store.epoch("a1")))

    @rule(which=integers(0, 50))
    def delete(self, which: int) -> None:
        if self.entries:
            self.world.store.delete("a1", [self.entries[which % len(self.entries)].id], self.world.clock.now)

    @rule()
    def invalidate(self) -> None:
        self.world.store.invalidate("a1", ALL, self.world.clock.now)
        self.world.store.collect(self.world.clock.now, 1e9, 100)

    @rule(worker=sampled_from([1, 2]), limit=integers(1, 3))
    def claim(self, worker: int, limit: int) -> None:
        if worker not in self.claimed:
            self.claimed[worker], self.written[worker] = self.world.store.claim(limit, self.world.clock.now, HOLD_S, "e"), False

    @rule(worker=sampled_from([1, 2]), dies=booleans())
    def write(self, worker: int, dies: bool) -> None:
        changes = self.claimed.get(worker, [])
        self.world.index.upsert([change.record for change in changes if change.record])
        self.world.index.delete([change.entry_id for change in changes if not change.record])
        self.written[worker] = True
        if dies:
            self.claimed.pop(worker, None)

    @rule(worker=sampled_from([1, 2]))
    def confirm(self, worker: int) -> None:
        if self.written.get(worker):
            self.world.store.confirm(self.claimed.pop(worker, []))

    @rule(seconds=sampled_from([1.0, HOLD_S]))
    def wait(self, seconds: float) -> None:
        self.world.clock.now += seconds

    @invariant()
    def nothing_dead_is_served(self) -> None:
        if not hasattr(self, "world"):
            return
        found = self.world.index.search("a1", "f1", unit(1, 0, 0), 100)
        served = self.world.store.candidates("a1", "f1", [each.id for each in found], "k", self.world.clock.now)
        by_key = {(entry := self.world.store.find_exact("a1", each.exact_key, self.world.clock.now)) and entry.id for each in self.entries}
        assert {each.id for each in served} <= by_key

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.clock.now += HOLD_S
        self.world.indexer.apply()
        live = {each.id for each in self.world.store.scan("", 1000, self.world.clock.now, "e")}
        found = self.world.indexer.reconcile()
        assert found == Differences(compared=len(live))
        assert set(self.world.held) >= live
        assert np.array_equal(sorted(live), sorted(each for each in self.world.held if each in live))
        self.world.store.close()
        self.directory.cleanup()


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
