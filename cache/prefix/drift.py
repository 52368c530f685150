"""Whether predictions of cached tokens can be believed.

A template, a salt or a block size that the router sees otherwise than the engine makes every prediction wrong, silently: requests would
follow a cache that is not there. Single misses are normal: blocks are evicted between a decision and its prefill.
"""

from collections import deque

_WINDOW = 64
_FEWEST = 16
_ALARM_BLOCKS, _ALARM_SHARE = 2.0, 0.15
"""Mean error, in blocks and as a share of the prompt, above both of which predictions are not believed."""
_CALM = 0.5
"""Both must fall to this part of it before they are again."""


class Drift:
    """The mean absolute error over the last predictions."""

    def __init__(self) -> None:
        self._last: deque[tuple[int, int]] = deque(maxlen=_WINDOW)
        self.alarm = False
        self.error_tokens = 0.0
        """Mean over the window."""

    def add(self, error: int, prompt_tokens: int, block_size: int) -> None:
        """One request's absolute error, in tokens."""
        self._last.append((error, prompt_tokens))
        errors = sum(each for each, _ in self._last)
        self.error_tokens = errors / len(self._last)
        share = errors / max(sum(tokens for _, tokens in self._last), 1)
        factor = _CALM if self.alarm else 1.0
        is_far = self.error_tokens > factor * _ALARM_BLOCKS * block_size and share > factor * _ALARM_SHARE
        if len(self._last) >= _FEWEST:
            self.alarm = is_far
