"""Writes answers to the store off the reply's path."""

import logging
from collections.abc import Callable, Iterator

from cache.entry import Entry
from cache.errors import CacheError
from serve_app.metrics import Metrics
from serve_app.queue_writer import DRAIN_LIMIT_S, QueueWriter
from serve_app.services import CacheService

log = logging.getLogger("ray.serve")

MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_BATCH = 32
"""Answers that are written in one transaction, when they come faster than they are written."""


def _nothing() -> None: ...


class Keeper:
    """One for each ingress replica."""

    def __init__(self, cache: CacheService, metrics: Metrics) -> None:
        self._cache = cache
        self._metrics = metrics
        self._writer: QueueWriter[tuple[Entry, Callable[[], None]]] = QueueWriter("store", self._write, metrics, MAX_BATCH)

    def keep(self, entry: Entry, done: Callable[[], None] = _nothing) -> None:
        """`done` is called once the entry has been written or given up."""
        if not self._writer.add((entry, done)):
            done()

    async def _write(self, items: list[tuple[Entry, Callable[[], None]]]) -> None:
        try:
            for batch in _batches([entry for entry, _ in items]):
                await self._keep(batch)
        finally:
            for _, done in items:
                done()

    async def _keep(self, entries: list[Entry]) -> None:
        """All together; if they are refused, each alone, so that none is lost for another."""
        try:
            await self._cache.keep(entries)
        except CacheError as error:
            if len(entries) > 1:
                for entry in entries:
                    await self._keep([entry])
                return
            log.warning("not written", extra={"what": "store", "items": 1, "error": type(error).__name__})
            self._metrics.write_skipped("store_error")

    async def drain(self, limit_s: float = DRAIN_LIMIT_S) -> None:
        await self._writer.drain(limit_s)

    async def stop(self) -> None:
        await self._writer.stop()


def _batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Of `MAX_BATCH_BYTES` at most, but for one that is longer alone."""
    batch: list[Entry] = []
    for entry in entries:
        if batch and sum(each.size for each in batch) + entry.size > MAX_BATCH_BYTES:
            yield batch
            batch = []
        batch.append(entry)
    yield batch
