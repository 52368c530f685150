"""How often prefixes were asked for lately."""

import math
from collections.abc import Callable, Iterable

_HALF_LIFE_S = 10.0
_MAX = 20_000
"""Prefixes that are remembered: those of the last requests."""


class Heat:
    """Counts that halve with time, by the key of a prefix's last block."""

    def __init__(self, clock: Callable[[], float], half_life_s: float = _HALF_LIFE_S) -> None:
        self._clock = clock
        self._half_life_s = half_life_s
        self._counts: dict[int, tuple[float, float]] = {}

    def of(self, key: int) -> float:
        return self._of(key, self._clock())

    def touch(self, key: int) -> float:
        """The count before this request, which is counted now."""
        return self._touch(key, self._clock())

    def touch_all(self, keys: Iterable[int]) -> list[float]:
        """Of one request's keys, at one time: keys that are always asked for together have equal counts."""
        now = self._clock()
        return [self._touch(key, now) for key in keys]

    def _of(self, key: int, now: float) -> float:
        count, since = self._counts.get(key, (0.0, now))
        return count * math.exp2((since - now) / self._half_life_s)

    def _touch(self, key: int, now: float) -> float:
        count = self._of(key, now)
        self._counts.pop(key, None)  # what was asked for last comes last
        self._counts[key] = count + 1, now
        if len(self._counts) > _MAX:  # half of them, because a dictionary that shrinks at its beginning is slow to find it again
            self._counts = dict(list(self._counts.items())[_MAX // 2 :])
        return count
