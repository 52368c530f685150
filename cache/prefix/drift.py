"""Whether predictions of cached tokens can be believed.

A template, a salt or a block size that the router sees otherwise than the engine makes every prediction wrong, silently: requests would
follow a cache that is not there. Single misses are normal: blocks are evicted between a decision and its prefill, and a request may have
a reason of its own to be computed anew. So it counts how many requests are far off, not by how much: no one request weighs more.
"""

from collections import deque

_WINDOW = 64
_FEWEST = 16
_FAR_BLOCKS, _FAR_SHARE = 2.0, 0.15
"""A prediction is far off if it is by more than both: blocks, and share of the prompt."""
_ALARM, _CALM = 0.5, 0.25
"""Share of the requests that are far off: predictions are not believed from the first on, and again below the second."""


class Drift:
    """Over the last predictions."""

    def __init__(self) -> None:
        self._last: deque[bool] = deque(maxlen=_WINDOW)
        self.alarm = False

    @property
    def far_share(self) -> float:
        """Of the last requests, those whose prediction was far off."""
        return sum(self._last) / max(len(self._last), 1)

    def add(self, error: int, prompt_tokens: int, block_size: int) -> None:
        """One request's absolute error, in tokens."""
        self._last.append(error > _FAR_BLOCKS * block_size and error > _FAR_SHARE * prompt_tokens)
        if len(self._last) >= _FEWEST:
            self.alarm = self.far_share > (_CALM if self.alarm else _ALARM)
