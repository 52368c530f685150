"""Prefix-aware greedy dual size and frequency, of RAGCache (Jin et al., arXiv 2404.12457).

A block's priority is the tier's clock as of its latest use, plus its worth: how many requests used it, times the seconds a token that it
cost those that had to compute it, on the average. Deep in a long prompt a token costs more. The clock is the highest priority that was ever
evicted: so what is not used any more is overtaken sooner or later, whatever it was worth. Each tier has a policy, and a clock, of its own.

Other than there, the first use is worth nothing: most blocks are never used again, and their worth would move the clock past those that
are. And what was evicted is remembered for long.
"""

from retrieval.eviction.base import K, Use
from retrieval.eviction.ranked import Block, RankedPolicy

_LEARNING = 0.05


class Pgdsf(RankedPolicy[K]):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.clock = 0.0
        self._usual_cost = 0.0
        """For blocks of requests that are not through yet."""

    def used(self, use: Use[K]) -> None:
        if use.inserted:
            self._usual_cost += (use.cost - self._usual_cost) * (_LEARNING if self._usual_cost else 1.0)
        super().used(use)

    def _priority(self, block: Block[K]) -> float:
        cost = block.cost_sum / block.computed if block.computed else self._usual_cost
        return self.clock + (block.frequency - 1) * cost

    def _evicted(self, block: Block[K]) -> None:
        self.clock = max(self.clock, block.priority)

    def clear(self) -> None:
        super().clear()
        self.clock = self._usual_cost = 0.0
