"""Answers past their soft end: served as they are, and computed anew off the reply's path."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

from cache.entry import Entry
from serve_app.background import Background
from serve_app.flights_lease import LeaseService
from serve_app.metrics import Metrics

RENEWAL_S = 120.0
"""How long one may take; then another process may try."""

RELEASE_S = 5.0
"""A lease that cannot be given back ends by itself."""

Renew = Callable[[], Awaitable[str]]
"""Computes and keeps the answer, unless that has been done meanwhile; gives the metric's result."""


class Renewals:
    """One for each ingress replica: of one request, one renewal in the whole cluster. `clock` gives seconds since the epoch."""

    def __init__(self, leases: LeaseService, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        self._leases = leases
        self._metrics = metrics
        self._clock = clock
        self._background = Background("renewal", metrics)
        self._running: set[tuple[str, str]] = set()

    def served(self, entry: Entry, key: str, renew: Renew) -> None:
        """An entry was served to the request with this key."""
        if not entry.is_stale(self._clock()) or (entry.namespace, key) in self._running:
            return
        self._running.add((entry.namespace, key))
        self._background.start(lambda: self._renew(entry, key, renew), lambda: self._running.discard((entry.namespace, key)))

    async def _renew(self, entry: Entry, key: str, renew: Renew) -> None:
        # Under a name that no entry has: this lease is not to be answered by the entry that is to be renewed.
        lease = entry.namespace, f"renewal/{key}", entry.epoch, uuid.uuid4().hex
        async with asyncio.timeout(RENEWAL_S):
            if await self._leases.acquire(*lease, RENEWAL_S) is not True:
                self._metrics.operation("renewal", "elsewhere")
                return
        try:
            async with asyncio.timeout(RENEWAL_S):
                self._metrics.operation("renewal", await renew())
        finally:
            async with asyncio.timeout(RELEASE_S):
                await self._leases.release(*lease)

    async def drain(self) -> None:
        """Returns when everything that was begun has ended."""
        await self._background.drain()

    async def stop(self) -> None:
        await self._background.stop()
