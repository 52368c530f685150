"""Writes off the reply's path: in order, bounded, and never in the way."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cache.entry import Entry
from cache.errors import StoreError
from serve_app import queue_writer
from serve_app.keeper import MAX_BATCH_BYTES, Keeper
from serve_app.queue_writer import MAX_WAITING
from tests.cache.entries import make_entry
from tests.serve_app.fakes import Clock, FakeCache
from tests.serve_app.recorded import RecordedMetrics


@pytest.fixture
def cache() -> FakeCache:
    return FakeCache([], Clock())


@pytest.fixture
def metrics() -> RecordedMetrics:
    return RecordedMetrics()


@pytest.fixture
async def keeper(cache: FakeCache, metrics: RecordedMetrics) -> AsyncIterator[Keeper]:
    keeper = Keeper(cache, metrics)
    yield keeper
    await keeper.stop()


async def test_entries_are_written_in_order(keeper: Keeper, cache: FakeCache, metrics: RecordedMetrics) -> None:
    entries = [make_entry() for _ in range(5)]
    for entry in entries:
        keeper.keep(entry)
    assert cache.entries == []
    await keeper.drain()
    assert cache.entries == entries
    assert metrics.skipped == []


async def test_a_failing_store_does_not_end_the_writer(keeper: Keeper, cache: FakeCache, metrics: RecordedMetrics) -> None:
    cache.writes.error = RuntimeError("no")
    keeper.keep(make_entry())
    await keeper.drain()
    cache.writes.error = None
    entry = make_entry()
    keeper.keep(entry)
    await keeper.drain()
    assert cache.entries == [entry]
    assert metrics.skipped == ["store_error"]


async def test_what_waits_is_written_together_but_not_too_much(keeper: Keeper, cache: FakeCache) -> None:
    batches: list[int] = []
    keep = cache.keep

    async def counted(entries: list[Entry]) -> None:
        batches.append(len(entries))
        await keep(entries)

    cache.keep = counted  # type: ignore[method-assign]
    for size in (10, 10, MAX_BATCH_BYTES // 2, MAX_BATCH_BYTES // 2, 2 * MAX_BATCH_BYTES, 10):
        keeper.keep(make_entry(answer=bytes(size)))
    await keeper.drain()
    assert batches == [3, 1, 1, 1]
    assert len(cache.entries) == 6


@pytest.mark.parametrize("size", [10, 2 * MAX_BATCH_BYTES])
async def test_an_entry_that_is_refused_costs_only_itself(keeper: Keeper, cache: FakeCache, metrics: RecordedMetrics, size: int) -> None:
    """Also if it is so long that it makes up a batch."""
    keep = cache.keep

    async def refusing(entries: list[Entry]) -> None:
        if any(entry.text == "bad" for entry in entries):
            raise StoreError("no")
        await keep(entries)

    cache.keep = refusing  # type: ignore[method-assign]
    for text in ("good", "bad", "also good"):
        keeper.keep(make_entry(text=text, answer=bytes(size if text == "bad" else 10)))
    await keeper.drain()
    assert [entry.text for entry in cache.entries] == ["good", "also good"]
    assert metrics.skipped == ["store_error"]


async def test_a_store_that_hangs_is_given_up(
    keeper: Keeper, cache: FakeCache, metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_writer, "WRITE_TIMEOUT_S", 0.01)
    cache.writes.hangs = True
    keeper.keep(make_entry())
    await asyncio.wait_for(keeper.drain(), 5)
    assert metrics.skipped == ["store_error"]


async def test_what_does_not_fit_the_queue_is_counted(keeper: Keeper, cache: FakeCache, metrics: RecordedMetrics) -> None:
    for _ in range(MAX_WAITING + 3):
        keeper.keep(make_entry())
    assert metrics.skipped == ["store_queue_full"] * 3
    await keeper.drain()
    assert len(cache.entries) == MAX_WAITING


async def test_a_drain_has_a_limit(keeper: Keeper, cache: FakeCache) -> None:
    cache.writes.hangs = True
    keeper.keep(make_entry())
    await asyncio.wait_for(keeper.drain(limit_s=0.02), 5)
    assert cache.entries == []


async def test_draining_and_stopping_a_keeper_that_kept_nothing(keeper: Keeper) -> None:
    await asyncio.wait_for(keeper.drain(), 5)
    await keeper.stop()


async def test_a_stopped_keeper_leaves_no_task(cache: FakeCache, metrics: RecordedMetrics) -> None:
    before = asyncio.all_tasks()
    keeper = Keeper(cache, metrics)
    keeper.keep(make_entry())
    await keeper.drain()
    await keeper.stop()
    await asyncio.wait(asyncio.all_tasks() - before or {asyncio.ensure_future(asyncio.sleep(0))})
    assert asyncio.all_tasks() == before
