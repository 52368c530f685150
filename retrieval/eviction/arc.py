"""Adaptive replacement (Megiddo and Modha, FAST 2003), for batches and pinned blocks.

Blocks that were found once are kept apart from those that were only inserted. How many of the second kind there may be is learnt from what
is missed shortly after it was evicted.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from itertools import chain

from retrieval.eviction.base import EvictionPolicy, K, Use

_Blocks = OrderedDict[K, None]


class Arc(EvictionPolicy[K]):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._recent: _Blocks[K] = OrderedDict()
        self._frequent: _Blocks[K] = OrderedDict()
        self._recent_ghosts: _Blocks[K] = OrderedDict()
        self._frequent_ghosts: _Blocks[K] = OrderedDict()
        self._target = 0.0
        """Blocks that `_recent` may hold."""

    def __contains__(self, key: K) -> bool:
        return key in self._recent or key in self._frequent

    def __len__(self) -> int:
        return len(self._recent) + len(self._frequent)

    def __iter__(self) -> Iterator[K]:
        return chain(self._recent, self._frequent)

    def missed(self, keys: Sequence[K]) -> None:
        recent, frequent = self._recent_ghosts, self._frequent_ghosts
        for key in keys:
            if key in recent:
                self._target = min(self._target + max(1.0, len(frequent) / len(recent)), self.capacity)
            elif key in frequent:
                self._target = max(self._target - max(1.0, len(recent) / len(frequent)), 0.0)

    def insert(self, key: K, parent: K | None = None) -> None:
        """A block that is missed soon after it went counts as found again."""
        known = key in self._recent_ghosts or key in self._frequent_ghosts
        self._recent_ghosts.pop(key, None)
        self._frequent_ghosts.pop(key, None)
        (self._frequent if known else self._recent)[key] = None

    def remove(self, key: K) -> None:
        del (self._recent if key in self._recent else self._frequent)[key]
        self._pins.pop(key, None)

    def used(self, use: Use[K]) -> None:
        for key in reversed(use.keys):
            if key in self._frequent:
                self._frequent.move_to_end(key)
            elif key in self._recent:
                if key in use.inserted:
                    self._recent.move_to_end(key)
                else:
                    del self._recent[key]
                    self._frequent[key] = None

    def evict(self, n: int, protected: Collection[K] = frozenset()) -> list[K] | None:
        recent, frequent = self._candidates(self._recent, protected), self._candidates(self._frequent, protected)
        left, victims = len(self._recent), list[K]()
        for _ in range(n):
            first, second = (recent, frequent) if left > self._target else (frequent, recent)
            key = next(first, None)
            if key is None:
                key = next(second, None)
            if key is None:
                return None
            left -= key in self._recent
            victims.append(key)
        for key in victims:
            self._forget(key)
        return victims

    def _candidates(self, blocks: _Blocks[K], protected: Collection[K]) -> Iterator[K]:
        return (key for key in blocks if key not in self._pins and key not in protected)

    def _forget(self, key: K) -> None:
        blocks, ghosts = (self._recent, self._recent_ghosts) if key in self._recent else (self._frequent, self._frequent_ghosts)
        del blocks[key]
        ghosts[key] = None
        if len(ghosts) > self.capacity:
            ghosts.popitem(last=False)

    def clear(self) -> None:
        for blocks in (self._recent, self._frequent, self._recent_ghosts, self._frequent_ghosts):
            blocks.clear()
        self._pins.clear()
        self._target = 0.0
