"""Hits from this process's memory, which the store would not learn of otherwise: it evicts what saves least."""

import asyncio
import logging
from collections import Counter

from serve_app.services import CacheService

log = logging.getLogger("ray.serve")

TELL_S = 2.0
LIMIT_S = 5.0
"""A cache that does not answer must not hold up the end of this process."""
MAX_ENTRIES = 10_000
"""Counted at once; hits of further entries are not."""


class Uses:
    """One for each ingress replica; belongs to its event loop. What cannot be told is lost: only eviction and statistics miss it."""

    def __init__(self, cache: CacheService, tell_s: float = TELL_S) -> None:
        """`tell_s`: seconds from a hit until the cache is told of it, with all that came meanwhile."""
        self._cache = cache
        self._tell_s = tell_s
        self._counts: Counter[str] = Counter()
        self._telling: asyncio.Task[None] | None = None

    def hit(self, entry_id: str) -> None:
        if entry_id in self._counts or len(self._counts) < MAX_ENTRIES:
            self._counts[entry_id] += 1
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_later())

    async def _tell_later(self) -> None:
        while self._counts:  # more may come while the cache is told
            await asyncio.sleep(self._tell_s)
            await self.tell()

    async def tell(self) -> None:
        """Tells the cache now."""
        counts, self._counts = self._counts, Counter()
        try:
            if counts:
                async with asyncio.timeout(LIMIT_S):
                    await self._cache.call("used", dict(counts))
        except Exception as error:  # a handle raises errors of many types
            log.warning("hits not counted", extra={"hits": counts.total(), "error": type(error).__name__})

    async def stop(self) -> None:
        """Tells what is left."""
        if self._telling:
            self._telling.cancel()
        await self.tell()
