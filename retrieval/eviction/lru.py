"""Least recently used."""

from collections import OrderedDict
from collections.abc import Collection, Iterator
from itertools import islice

from retrieval.eviction.base import EvictionPolicy, K, Use


class Lru(EvictionPolicy[K]):
    """Within one use the end of a chain counts as used before its head."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._blocks: OrderedDict[K, None] = OrderedDict()

    def __contains__(self, key: K) -> bool:
        return key in self._blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[K]:
        return iter(self._blocks)

    def insert(self, key: K, parent: K | None = None) -> None:
        self._blocks[key] = None

    def remove(self, key: K) -> None:
        del self._blocks[key]
        self._pins.pop(key, None)

    def used(self, use: Use[K]) -> None:
        for key in reversed(use.keys):
            if key in self._blocks:
                self._blocks.move_to_end(key)

    def evict(self, n: int, protected: Collection[K] = frozenset()) -> list[K] | None:
        old = islice((key for key in self._blocks if key not in self._pins and key not in protected), n)
        victims = list(old)
        if len(victims) < n:
            return None
        for key in victims:
            del self._blocks[key]
        return victims

    def clear(self) -> None:
        self._blocks.clear()
        self._pins.clear()
