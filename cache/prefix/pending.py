"""Blocks that are on their way into a replica's cache: requests were sent there, and the engine has not told of them yet."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_LIFE_S = 120.0
"""An entry goes when its request does; this is for requests that nobody tells the end of."""
GRACE_S = 1.0
"""How long after a prefill its events may still be on their way."""


@dataclass(slots=True, eq=False)
class Expected:
    """The blocks that one request will leave on one replica."""

    keys: Sequence[int]
    bit: int
    stored: bool = False
    gone: bool = False


class Pending:
    """Masks of replicas by block, for `PrefixIndex.match`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.masks: dict[int, int] = {}
        self._again: dict[tuple[int, int], int] = {}
        """How many more requests bring the same block to the same replica."""
        self._ends: deque[tuple[float, Expected]] = deque()
        self._soon: deque[tuple[float, Expected]] = deque()

    def add(self, keys: Sequence[int], bit: int) -> Expected:
        expected = Expected(keys, bit)
        if self.masks.keys().isdisjoint(keys):
            self.masks.update(dict.fromkeys(keys, bit))
        else:
            for key in keys:
                self._add(key, bit)
        self._ends.append((self._clock() + MAX_LIFE_S, expected))
        return expected

    def _add(self, key: int, bit: int) -> None:
        mask = self.masks.get(key, 0)
        if mask & bit:
            self._again[key, bit] = self._again.get((key, bit), 0) + 1
        else:
            self.masks[key] = mask | bit

    def stored(self, expected: Expected) -> None:
        """The engine has computed them; its events will say so themselves within the grace."""
        expected.stored = True
        self._soon.append((self._clock() + GRACE_S, expected))

    def shorten(self, expected: Expected, count: int) -> None:
        """Only its first blocks will come."""
        for key in expected.keys[count:]:
            self._drop(key, expected.bit)
        expected.keys = expected.keys[:count]

    def drop(self, expected: Expected) -> None:
        """They will not come. Calling it twice is harmless."""
        if expected.gone:
            return
        expected.gone = True
        for key in expected.keys:
            self._drop(key, expected.bit)
        expected.keys = ()

    def leave(self, bit: int) -> None:
        """A replica has gone; its bit may become another's."""
        for _, expected in self._ends:
            if expected.bit == bit:
                self.drop(expected)

    def move(self, old: int, new: int) -> None:
        """A replica's bit has changed."""
        for _, expected in self._ends:
            if expected.bit == old and not expected.gone:
                for key in expected.keys:
                    self._drop(key, old)
                    self._add(key, new)
                expected.bit = new

    def _drop(self, key: int, bit: int) -> None:
        more = self._again.pop((key, bit), 0)
        if more:
            if more > 1:
                self._again[key, bit] = more - 1
            return
        left = self.masks[key] & ~bit
        if left:
            self.masks[key] = left
        else:
            del self.masks[key]

    def expire(self) -> None:
        """Forgets what is over. To be called now and then."""
        now = self._clock()
        for queue in (self._soon, self._ends):
            while queue and (queue[0][1].gone or queue[0][0] <= now):
                self.drop(queue.popleft()[1])
