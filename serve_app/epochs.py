"""What this process knows of the namespaces' epochs: whether answers in its own memory may still be served."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from serve_app.coalesce import Coalesced

log = logging.getLogger("ray.serve")

FRESH_S = 0.5
"""An epoch older than this is asked for anew: so an ended answer is served for no longer."""
AHEAD_S = 0.25
"""An epoch older than this is asked for anew while it is still good: so no hit has to wait for it."""
LIMIT_S = 1.0
MAX_NAMESPACES = 10_000


class EpochSource(Protocol):
    async def epoch(self, namespace: str) -> int: ...


class Epochs:
    """Belongs to one event loop. Of the namespaces seen last, `MAX_NAMESPACES` are remembered. `clock` gives seconds."""

    def __init__(self, source: EpochSource, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._reads = Coalesced()
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def current(self, namespace: str) -> int:
        """The epoch, at most `FRESH_S` seconds old. Raises what the source raises."""
        epoch, seen_at = self._seen.get(namespace, (0, float("-inf")))
        if 0 <= self._clock() - seen_at <= FRESH_S:  # a clock that went back makes nothing fresh
            return epoch
        await self._ask(namespace)
        return self._seen[namespace][0]

    def fresh(self, namespace: str) -> int | None:
        """The epoch, if it is known without asking. Has it asked for again in time, so that who comes often never waits."""
        epoch, seen_at = self._seen.get(namespace, (0, float("-inf")))
        age = self._clock() - seen_at
        if age > AHEAD_S or age < 0:
            self._ask_ahead(namespace)
        return epoch if 0 <= age <= FRESH_S else None

    def _ask_ahead(self, namespace: str) -> None:
        if namespace not in self._asking:
            task = self._asking[namespace] = asyncio.ensure_future(self._ask(namespace))
            task.add_done_callback(lambda ended: self._asked(namespace, ended))

    def _asked(self, namespace: str, ended: asyncio.Task[None]) -> None:
        del self._asking[namespace]
        if not ended.cancelled() and ended.exception():  # whoever needs it asks again, and hears of it
            log.debug("epoch not read ahead", extra={"error": type(ended.exception()).__name__})

    async def _ask(self, namespace: str) -> None:
        asked_at = self._clock()
        self._remember(namespace, await self._reads.read(namespace, lambda: self._source.epoch(namespace), LIMIT_S), asked_at)

    async def renew(self, namespace: str) -> None:
        """To be called after a change of this process's own: it serves nothing from then on that the change has ended."""
        asked_at = self._clock()
        self._remember(namespace, await self._source.epoch(namespace), asked_at)

    def saw(self, namespace: str, epoch: int, asked_at: float) -> None:
        """Another answer of the cache has told it, to a question of that time."""
        self._remember(namespace, epoch, asked_at)

    def _remember(self, namespace: str, epoch: int, at: float) -> None:
        known = self._seen.get(namespace, (0, 0.0))[0]
        self._seen[namespace] = (max(known, epoch), at)  # answers may overtake each other; epochs only rise
        self._seen.move_to_end(namespace)
        if len(self._seen) > MAX_NAMESPACES:
            self._seen.popitem(last=False)
