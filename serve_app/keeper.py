"""Writes answers to the store off the reply's path, through a bounded queue."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from cache.entry import Entry
from serve_app.metrics import Metrics
from serve_app.services import CacheService

log = logging.getLogger("ray.serve")

MAX_WAITING = 1000
WRITE_TIMEOUT_S = 10.0
DRAIN_LIMIT_S = 5.0


def _nothing() -> None: ...


class Keeper:
    """One writer for each ingress replica: what does not fit the queue is not kept, and counted."""

    def __init__(self, cache: CacheService, metrics: Metrics) -> None:
        self._cache = cache
        self._metrics = metrics
        self._queue: asyncio.Queue[tuple[Entry, Callable[[], None]]] = asyncio.Queue(MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def keep(self, entry: Entry, done: Callable[[], None] = _nothing) -> None:
        """`done` is called once the entry has been written or given up."""
        if self._task is None:
            self._task = asyncio.create_task(self._write_forever())
        try:
            self._queue.put_nowait((entry, done))
        except asyncio.QueueFull:
            self._metrics.write_skipped("queue_full")
            done()

    async def _write_forever(self) -> None:
        while True:
            entry, done = await self._queue.get()
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._cache.keep(entry)
            except Exception as error:  # a handle raises errors of many types; a lost write is a later miss
                log.warning("answer not kept", extra={"error": type(error).__name__})
                self._metrics.write_skipped("store_error")
            finally:
                done()
                self._queue.task_done()

    async def drain(self, limit_s: float = DRAIN_LIMIT_S) -> None:
        """Returns when everything accepted so far has been written or given up, or after `limit_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._queue.join()

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
