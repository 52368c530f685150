"""Writes the query log off the answers' path, through a bounded queue."""

import asyncio
import contextlib
import logging

from serve_app.metrics import Metrics
from serve_app.modelcache.backend import CacheBackend, QueryRecord

log = logging.getLogger("ray.serve")

MAX_WAITING = 1000
MAX_BATCH = 100
"""Lines in one call."""
WRITE_TIMEOUT_S = 10.0
DRAIN_LIMIT_S = 5.0


class QueryLog:
    """One writer for each ingress replica: what does not fit the queue is not logged, and counted."""

    def __init__(self, backend: CacheBackend, metrics: Metrics, max_waiting: int = MAX_WAITING) -> None:
        self._backend = backend
        self._metrics = metrics
        self._queue: asyncio.Queue[QueryRecord] = asyncio.Queue(max_waiting)
        self._task: asyncio.Task[None] | None = None

    def add(self, record: QueryRecord) -> None:
        """Never waits and never fails."""
        if self._task is None:
            self._task = asyncio.create_task(self._write_forever())
        try:
            self._queue.put_nowait(record)
        except asyncio.QueueFull:
            self._metrics.write_skipped("query_log_full")

    async def _write_forever(self) -> None:
        while True:
            records = [await self._queue.get()]
            while len(records) < MAX_BATCH and not self._queue.empty():
                records.append(self._queue.get_nowait())
            await self._write(records)

    async def _write(self, records: list[QueryRecord]) -> None:
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._backend.log(records)
        except Exception as error:  # a backend raises errors of many types; nobody waits for the lines
            log.warning("queries not logged", extra={"error": type(error).__name__})
            for _ in records:
                self._metrics.write_skipped("query_log_error")
        finally:
            for _ in records:
                self._queue.task_done()

    async def drain(self, limit_s: float = DRAIN_LIMIT_S) -> None:
        """Returns when everything accepted so far has been written or given up, or after `limit_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._queue.join()

    def stop(self) -> None:
        if self._task:
            self._task.cancel()
