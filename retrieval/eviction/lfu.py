"""Least frequently used, with counts that are halved now and then, so that what was hot long ago goes too."""

from retrieval.eviction.base import K
from retrieval.eviction.ranked import Block, RankedPolicy

HALVED_AFTER = 10
"""Uses of blocks, in multiples of the capacity."""


class Lfu(RankedPolicy[K]):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._halved_at = 0

    def _priority(self, block: Block[K]) -> float:
        return block.frequency

    def _rank(self, block: Block[K]) -> None:
        super()._rank(block)
        if self._uses - self._halved_at > HALVED_AFTER * self.capacity:
            self._halve()

    def _halve(self) -> None:
        self._halved_at = self._uses
        for block in self._everything():
            block.frequency /= 2
            block.priority = block.frequency
        self._rebuild()
