"""Puts an engine's event batches in order, without I/O: gaps, restarts, replays.

Engines number their batches from 0. A publisher may drop batches silently, and an engine that was restarted begins anew.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from cache.prefix.events import KVEventBatch

_MAX_HELD = 10_000
"""Batches that are kept while older ones are being replayed; what comes beyond them will be replayed, too."""


class Sink(Protocol):
    """What batches are applied to."""

    def apply(self, batch: KVEventBatch) -> None: ...

    def clear(self) -> None:
        """Nothing is known any more."""


class EventReader:
    """Of one source. `missing` says from which batch on a replay is needed; the caller asks for it and hands it to `replayed`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._decode = msgspec.msgpack.Decoder(KVEventBatch).decode
        self._next = 0
        self._held: dict[int, bytes] = {}
        self._brought: dict[int, int] = {}
        """Hashes of batches that came by replay, and may still come as they were published."""
        self.restarts = 0
        self.replays = 0
        self.losses = 0
        """Batches that no replay could bring back: what the sink knows may be wrong until the engine's cache is reset."""
        self.damaged = 0

    @property
    def missing(self) -> int | None:
        """The first batch that a replay must bring; None if there is nothing to bring."""
        return self._next if self._held else None

    def live(self, number: int, payload: bytes) -> None:
        """A batch as it was published. One with an old number comes from an engine that was restarted."""
        if number < self._next:
            if self._brought.pop(number, None) == hash(payload):
                return
            self._restart()
        self._brought.clear()
        if number > self._next:
            if len(self._held) < _MAX_HELD:
                self._held[number] = payload
            return
        self._apply(payload)
        self._release()

    def replayed(self, batches: Iterable[tuple[int, bytes]]) -> None:
        """The answer to a request for everything from `missing` on, to its end."""
        self.replays += 1
        for number, payload in sorted((*batches, *self._held.items())):
            if number < self._next:
                continue
            self.losses += number - self._next
            self._next = number
            if number not in self._held:
                self._brought[number] = hash(payload)
            self._apply(payload)
        self._held.clear()

    def _restart(self) -> None:
        self.restarts += 1
        self._next = 0
        self._held.clear()
        self._sink.clear()

    def _release(self) -> None:
        while (payload := self._held.pop(self._next, None)) is not None:
            self._apply(payload)

    def _apply(self, payload: bytes) -> None:
        self._next += 1
        try:
            batch = self._decode(payload)
        except msgspec.DecodeError:
            self.damaged += 1
            return
        self._sink.apply(batch)
