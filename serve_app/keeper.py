"""Writes answers to the store off the reply's path."""

from collections.abc import Callable

from cache.entry import Entry
from serve_app.metrics import Metrics
from serve_app.queue_writer import DRAIN_LIMIT_S, QueueWriter
from serve_app.services import CacheService


def _nothing() -> None: ...


class Keeper:
    """One for each ingress replica."""

    def __init__(self, cache: CacheService, metrics: Metrics) -> None:
        self._cache = cache
        self._writer: QueueWriter[tuple[Entry, Callable[[], None]]] = QueueWriter("store", self._write, metrics, max_batch=1)

    def keep(self, entry: Entry, done: Callable[[], None] = _nothing) -> None:
        """`done` is called once the entry has been written or given up."""
        if not self._writer.add((entry, done)):
            done()

    async def _write(self, items: list[tuple[Entry, Callable[[], None]]]) -> None:
        for entry, done in items:
            try:
                await self._cache.keep(entry)
            finally:
                done()

    async def drain(self, limit_s: float = DRAIN_LIMIT_S) -> None:
        await self._writer.drain(limit_s)

    async def stop(self) -> None:
        await self._writer.stop()
