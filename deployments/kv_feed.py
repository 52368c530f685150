"""Follows the KV events of the engine in this process, and hands what changed to every ingress that listens.

Events travel from the engine to its replica only, and stay on the machine; ingresses get keys (`cache/prefix/keys.py`), in order, over one
authenticated connection. So a gap, a restart of the engine or a late ingress is dealt with once, beside the engine.
"""

import asyncio
import logging

import zmq
import zmq.asyncio

from cache.prefix.keys import BlockKeys
from cache.prefix.mirror import Change, EngineMirror
from cache.prefix.reader import EventReader
from deployments.engines.base import Engine, KvEventSource

log = logging.getLogger("ray.serve")

MAX_BEHIND = 200_000
"""Blocks that one listener may lag behind; then it gets a snapshot instead."""
REPLAY_LIMIT_S = 5.0
RETRY_S = 1.0
"""Between two attempts to read the events, or to reset the cache."""
HIGH_WATER_MARK = 100_000
"""Batches that ZMQ keeps for a reader that does not keep up, as vLLM's publisher does."""


class Subscription:
    """What one listener has not been told yet. It begins with a snapshot."""

    def __init__(self, feed: "KvFeed") -> None:
        self._feed = feed
        self._changes: list[Change] | None = None
        self._size = 0

    def add(self, change: Change) -> None:
        if self._changes is None:
            return
        self._changes.append(change)
        self._size += len(change.keys)
        if self._size > MAX_BEHIND:
            self._changes = None

    def take(self) -> tuple[bool, list[Change]]:
        """Whether it starts from nothing, and the changes."""
        is_snapshot, changes = self._changes is None, self._changes
        self._changes, self._size = [], 0
        return is_snapshot, self._feed.snapshot() if changes is None else changes


class KvFeed:
    """Of one engine. To be started after it."""

    def __init__(self, engine: Engine, seed: bytes) -> None:
        """`seed`: of the keys; every ingress has the same."""
        self._engine = engine
        self._listeners: set[Subscription] = set()
        self.mirror = EngineMirror(BlockKeys(seed, engine.block_size), self._tell)
        self.reader = EventReader(self.mirror)
        self.is_connected = False
        self._following: asyncio.Task[None] | None = None
        self._resetting: asyncio.Task[None] | None = None

    def start(self) -> None:
        sources = self._engine.kv_event_sources()
        if len(sources) != 1:  # each rank has a cache of its own, and the engine chooses the rank
            log.warning(
                "the engine's cache is not followed, and its replica gets requests by load alone: it must have one data-parallel rank",
                extra={"sources": len(sources)},
            )
            return
        self._following = asyncio.create_task(self._follow(sources[0]))

    async def stop(self) -> None:
        tasks = [task for task in (self._following, self._resetting) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def subscribe(self) -> Subscription:
        subscription = Subscription(self)
        self._listeners.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._listeners.discard(subscription)

    def snapshot(self) -> list[Change]:
        return self.mirror.snapshot()

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener.add(change)

    async def _follow(self, source: KvEventSource) -> None:
        context = zmq.asyncio.Context.instance()
        while True:
            try:
                with context.socket(zmq.SUB) as events:
                    events.set_hwm(HIGH_WATER_MARK)
                    events.connect(source.endpoint)
                    events.subscribe(source.topic)
                    await self._replay(context, source)  # what was published before the subscription took effect
                    await self._read(context, events, source)
            except (zmq.ZMQError, TimeoutError) as error:
                log.warning("the engine's KV events cannot be read", extra={"endpoint": source.endpoint, "error": repr(error)})
            except Exception:
                log.exception("an event of the engine's cannot be used", extra={"endpoint": source.endpoint})
                self._lost()
            self.is_connected = False
            await asyncio.sleep(RETRY_S)

    async def _read(self, context: zmq.asyncio.Context, events: zmq.asyncio.Socket, source: KvEventSource) -> None:
        self.is_connected = True
        while True:
            frames = await events.recv_multipart()
            if len(frames) == 3:
                self.reader.live(int.from_bytes(frames[1], "big"), frames[2])
            if self.reader.missing is not None:
                await self._replay(context, source)

    async def _replay(self, context: zmq.asyncio.Context, source: KvEventSource) -> None:
        """Raises `TimeoutError` if the engine does not answer."""
        losses = self.reader.losses
        if source.replay_endpoint is None:
            self._replayed([], losses)
            return
        with context.socket(zmq.DEALER) as asking:
            asking.set_hwm(HIGH_WATER_MARK)
            asking.connect(source.replay_endpoint)
            asking.setsockopt(zmq.LINGER, 0)
            first = self.reader.missing or 0
            await asking.send_multipart((b"", first.to_bytes(8, "big")))
            async with asyncio.timeout(REPLAY_LIMIT_S):
                batches = await _replayed(asking)
        self._replayed(batches, losses)

    def _replayed(self, batches: list[tuple[int, bytes]], losses: int) -> None:
        self.reader.replayed(batches)
        if self.reader.losses > losses:
            log.error("KV events are lost for good; the engine's prefix cache is reset", extra={"batches": self.reader.losses - losses})
            self._lost()

    def _lost(self) -> None:
        if self._resetting is None or self._resetting.done():
            self._resetting = asyncio.create_task(self._reset())

    async def _reset(self) -> None:
        """What the engine holds is not known any more, but it can be made known: nothing. It refuses while requests run."""
        try:
            while not await self._engine.reset_prefix_cache():
                await asyncio.sleep(RETRY_S)
        except Exception:  # an engine that has died
            log.exception("the engine's prefix cache could not be reset")


async def _replayed(asking: zmq.asyncio.Socket) -> list[tuple[int, bytes]]:
    batches: list[tuple[int, bytes]] = []
    while True:
        frames = await asking.recv_multipart()
        number = int.from_bytes(frames[-2], "big", signed=True)
        if number < 0:
            return batches
        batches.append((number, frames[-1]))
