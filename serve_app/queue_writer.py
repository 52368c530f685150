"""Writes off the replies' path: a bounded queue, and one task that empties it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from serve_app.metrics import Metrics

log = logging.getLogger("ray.serve")

MAX_WAITING = 1000
WRITE_TIMEOUT_S = 10.0
DRAIN_LIMIT_S = 5.0

T = TypeVar("T")


class QueueWriter(Generic[T]):
    """In order, up to `max_batch` items at a time. Belongs to an event loop.

    What does not fit the queue is given up and counted as `{what}_queue_full`, what cannot be written as `{what}_error`.
    """

    def __init__(
        self,
        what: str,
        write: Callable[[list[T]], Awaitable[None]],
        metrics: Metrics,
        max_batch: int,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._what = what
        self._write = write
        self._metrics = metrics
        self._max_batch = max_batch
        self._queue: asyncio.Queue[T] = asyncio.Queue(max_waiting)
        self._task: asyncio.Task[None] | None = None

    def add(self, item: T) -> bool:
        """Never waits and never fails. False: it is given up."""
        if self._task is None:
            self._task = asyncio.create_task(self._write_forever())
        try:
            self._queue.put_nowait(item)
        except asyncio.QueueFull:
            self._metrics.write_skipped(f"{self._what}_queue_full")
            return False
        return True

    async def _write_forever(self) -> None:
        while True:
            items = [await self._queue.get()]
            while len(items) < self._max_batch and not self._queue.empty():
                items.append(self._queue.get_nowait())
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._write(items)
            except Exception as error:  # such calls raise errors of many types; nobody waits for what is written here
                log.warning("not written", extra={"what": self._what, "items": len(items), "error": type(error).__name__})
                for _ in items:
                    self._metrics.write_skipped(f"{self._what}_error")
            finally:
                for _ in items:
                    self._queue.task_done()

    async def drain(self, limit_s: float = DRAIN_LIMIT_S) -> None:
        """Returns when everything accepted so far has been written or given up, or after `limit_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._queue.join()

    async def stop(self) -> None:
        """What still waits is given up."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
