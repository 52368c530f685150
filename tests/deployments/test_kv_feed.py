"""An engine's events are followed through gaps, restarts and losses, and told to whoever listens."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from cache.prefix.events import AllBlocksCleared, BlockRemoved, BlockStored, Event, KVEventBatch
from cache.prefix.mirror import CLEARED, Change
from deployments import kv_feed
from deployments.engines.base import KvEventSource
from deployments.engines.simulated.publisher import KvEventPublisher
from deployments.kv_feed import KvFeed
from tests.deployments.servers import eventually

BLOCK = 4


@dataclass
class FakeEngine:
    """A block cache that a test fills, and events that a test may lose."""

    publisher: KvEventPublisher = field(default_factory=lambda: KvEventPublisher("127.0.0.1"))
    block_size: int = BLOCK
    resets: int = 0
    refusals: int = 0
    unreachable: bool = False

    def kv_event_sources(self) -> tuple[KvEventSource, ...]:
        source = self.publisher.source
        return (KvEventSource(source.endpoint, "tcp://127.0.0.1:1", source.topic),) if self.unreachable else (source,)

    async def reset_prefix_cache(self) -> bool:
        if self.refusals:
            self.refusals -= 1
            return False
        self.resets += 1
        self.publisher.publish([AllBlocksCleared()])
        return True

    def publish(self, *events: Event) -> None:
        self.publisher.publish(events)

    def lose(self, *events: Event, forever: bool = False) -> None:
        """As if the batch had been dropped on its way; `forever`: also from what can be replayed."""
        send, self.publisher._pub = self.publisher._pub, _Nowhere()  # type: ignore[assignment]
        self.publisher.publish(events)
        self.publisher._pub = send
        if forever:
            self.publisher._buffer.clear()

    def restart(self) -> None:
        self.publisher._sequence = 0
        self.publisher._buffer.clear()


class _Nowhere:
    def send_multipart(self, *args: Any) -> None: ...


def stored(*names: int, parent: int | None = None) -> BlockStored:
    tokens = [name * 10 + place for name in names for place in range(BLOCK)]
    return BlockStored(list(names), parent, tokens, BLOCK, None, "GPU", None, None, 0, "full_attention")


def removed(*names: int) -> BlockRemoved:
    return BlockRemoved(list(names), "GPU", 0)


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    engine = FakeEngine()
    yield engine
    engine.publisher.close()


@pytest.fixture
async def feed(engine: FakeEngine) -> AsyncIterator[KvFeed]:
    feed = KvFeed(engine, b"seed")  # type: ignore[arg-type]  # what the feed needs of an engine
    feed.start()
    await eventually(lambda: feed.is_connected)
    yield feed
    await feed.stop()


def names(feed: KvFeed) -> set[Any]:
    return set(feed.mirror._blocks)


def told(changes: Sequence[Change]) -> list[tuple[bool, int]]:
    return [(change.stored, len(change.keys)) for change in changes if change.keys or change is CLEARED]


async def test_events_are_followed(engine: FakeEngine, feed: KvFeed) -> None:
    engine.publish(stored(1, 2))
    engine.publish(stored(3, parent=2), removed(3))
    await eventually(lambda: names(feed) == {1, 2} and feed.reader.missing is None)


async def test_what_was_published_before_the_feed_began_is_replayed(engine: FakeEngine) -> None:
    engine.publish(stored(1, 2))
    feed = KvFeed(engine, b"seed")  # type: ignore[arg-type]
    feed.start()
    await eventually(lambda: names(feed) == {1, 2})
    await feed.stop()


async def test_a_gap_is_filled(engine: FakeEngine, feed: KvFeed) -> None:
    engine.publish(stored(1))
    engine.lose(stored(2, parent=1))
    engine.publish(stored(3, parent=2))
    await eventually(lambda: names(feed) == {1, 2, 3})
    assert (feed.reader.losses, feed.mirror.unknown_parents) == (0, 0)


async def test_an_engine_that_begins_anew_has_an_empty_cache(engine: FakeEngine, feed: KvFeed) -> None:
    engine.publish(stored(1, 2))
    engine.publish(stored(3, parent=2))
    await eventually(lambda: names(feed) == {1, 2, 3})
    engine.restart()
    engine.publish(stored(7))
    await eventually(lambda: names(feed) == {7})
    assert feed.reader.restarts == 1


async def test_events_that_are_lost_for_good_cost_the_engine_its_cache_and_not_the_truth(engine: FakeEngine, feed: KvFeed) -> None:
    engine.publish(stored(1))
    await eventually(lambda: names(feed) == {1})
    engine.lose(removed(1), forever=True)
    engine.refusals = 1
    engine.publish(stored(3))
    await eventually(lambda: engine.resets == 1 and names(feed) == set())
    engine.publish(stored(4))
    await eventually(lambda: names(feed) == {4})


async def test_a_source_that_cannot_be_reached_is_tried_again(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_feed, "REPLAY_LIMIT_S", 0.05)
    monkeypatch.setattr(kv_feed, "RETRY_S", 0.01)
    engine.unreachable = True
    feed = KvFeed(engine, b"seed")  # type: ignore[arg-type]
    feed.start()
    listener = feed.subscribe()
    assert told(listener.take()[1]) == []
    assert not feed.is_connected
    await feed.stop()


async def test_engines_with_several_caches_are_not_followed(engine: FakeEngine) -> None:
    source = engine.publisher.source
    engine.kv_event_sources = lambda: (source, source)  # type: ignore[method-assign]
    feed = KvFeed(engine, b"seed")  # type: ignore[arg-type]
    feed.start()
    assert feed._following is None
    await feed.stop()


async def test_an_event_that_cannot_be_used_does_not_end_the_feed(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_feed, "RETRY_S", 0.01)
    feed = KvFeed(engine, b"seed")  # type: ignore[arg-type]
    feed.start()
    await eventually(lambda: feed.is_connected)
    apply = feed.mirror.apply

    def fail(batch: KVEventBatch) -> None:
        monkeypatch.setattr(feed.mirror, "apply", apply)
        raise OverflowError

    monkeypatch.setattr(feed.mirror, "apply", fail)
    engine.publish(stored(1))
    await eventually(lambda: engine.resets == 1)
    engine.publish(stored(7))
    await eventually(lambda: 7 in names(feed))
    await feed.stop()


async def test_losses_while_the_engine_is_busy_cost_one_reset(engine: FakeEngine, feed: KvFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_feed, "RETRY_S", 0.01)
    engine.refusals = 5
    for _ in range(5):
        feed._lost()
    await eventually(lambda: engine.resets == 1)
    assert feed._resetting is not None
    await feed._resetting
    assert engine.resets == 1


async def test_a_listener_gets_a_snapshot_and_then_changes(engine: FakeEngine, feed: KvFeed) -> None:
    engine.publish(stored(1, 2))
    await eventually(lambda: names(feed) == {1, 2})
    listener = feed.subscribe()
    is_snapshot, changes = listener.take()
    assert (is_snapshot, told(changes)) == (True, [(True, 2)])
    engine.publish(stored(3, parent=2))
    engine.publish(removed(3))
    await eventually(lambda: feed.reader._next == 3)
    is_snapshot, changes = listener.take()
    assert (is_snapshot, told(changes)) == (False, [(True, 1), (False, 1)])
    assert listener.take() == (False, [])


async def test_a_listener_that_lags_behind_gets_a_snapshot(engine: FakeEngine, feed: KvFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_feed, "MAX_BEHIND", 3)
    listener = feed.subscribe()
    listener.take()
    engine.publish(stored(1, 2))
    engine.publish(stored(3, 4, parent=2))
    engine.publish(removed(4))
    await eventually(lambda: names(feed) == {1, 2, 3})
    is_snapshot, changes = listener.take()
    assert (is_snapshot, told(changes)) == (True, [(True, 3)])
    feed.unsubscribe(listener)
    engine.publish(stored(5, parent=3))
    await eventually(lambda: names(feed) == {1, 2, 3, 5})
    assert listener.take() == (False, [])


async def test_everything_cleared_is_told(engine: FakeEngine, feed: KvFeed) -> None:
    listener = feed.subscribe()
    listener.take()
    engine.publish(stored(1))
    engine.publish(AllBlocksCleared())
    await eventually(lambda: feed.reader._next == 2)
    assert told(listener.take()[1]) == [(True, 1), (False, 0)]
