"""Whether to begin with a prefill before the search for its documents has ended.

RAGCache (Jin et al., arXiv 2404.12457) computes the provisional results of a vector search while the search goes on. That hides the search
where it is slow and mostly right early on; where it is not, or the engine has other work, it only costs. So how long searches go on after
their provisional results, and how much of these lasts, is learnt from every search, also from those that nothing was computed for.
"""

from dataclasses import dataclass

_SMOOTHING = 0.05
_REMEMBERED = 0.99
_FEWEST = 8
"""Searches that must have been seen."""
MIN_GAIN_S = 0.005
"""What a head start must promise: starting and ending one costs two requests."""
MAX_WASTE = 0.1
"""Of the tokens that are computed."""


@dataclass(slots=True)
class Gate:
    """Of one ingress's searches."""

    searches: int = 0
    remaining_s: float = 0.0
    """How long searches went on after their provisional results; moving average, as all others."""
    lasting: float = 1.0
    """Share of the provisional documents that came before the first one that did not last."""
    computed: float = 0.0
    wasted: float = 0.0
    """Tokens of all prefills, and those that head starts computed for nothing; both forgotten slowly."""

    def seen(self, remaining_s: float, lasting: float) -> None:
        """A search has ended."""
        self.searches += 1
        rate = max(_SMOOTHING, 1 / self.searches)
        self.remaining_s += rate * (remaining_s - self.remaining_s)
        self.lasting += rate * (lasting - self.lasting)

    def spent(self, computed: float, wasted: float) -> None:
        """Tokens that a request's prefill and its head start computed, and those of them that were for nothing."""
        self.computed = _REMEMBERED * self.computed + computed
        self.wasted = _REMEMBERED * self.wasted + wasted

    @property
    def is_worth_planning(self) -> bool:
        """Searches are slow enough that a head start may pay."""
        return self.searches >= _FEWEST and self.remaining_s * self.lasting >= MIN_GAIN_S

    def opens(self, prefill_s: float, backlog_s: float) -> bool:
        """`prefill_s`: of the provisional prompt, where it would go; `backlog_s`: of other work there."""
        if not self.is_worth_planning or backlog_s > 0:
            return False
        begun_s = min(prefill_s, self.remaining_s)
        if begun_s * self.lasting < MIN_GAIN_S or self.wasted > MAX_WASTE * self.computed > 0:
            return False
        return begun_s * (1 - self.lasting) <= MAX_WASTE * prefill_s
