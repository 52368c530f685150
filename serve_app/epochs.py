"""What this process knows of the namespaces' epochs: whether answers in its own memory may still be served."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from serve_app.coalesce import Coalesced

FRESH_S = 0.5
"""An epoch older than this is asked for anew: so an ended answer is served for no longer. The promise is one second."""
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

    async def current(self, namespace: str) -> int:
        """The epoch, at most `FRESH_S` seconds old. Raises what the source raises."""
        epoch, seen_at = self._seen.get(namespace, (0, float("-inf")))
        asked_at = self._clock()
        if 0 <= asked_at - seen_at <= FRESH_S:  # a clock that went back makes nothing fresh
            return epoch
        self._remember(namespace, await self._reads.read(namespace, lambda: self._source.epoch(namespace), LIMIT_S), asked_at)
        return self._seen[namespace][0]

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
