"""In which order requests that wait are sent on: those of which most is cached first.

RAGCache's reordering (Jin et al., arXiv 2404.12457): the priority is the cached length over the length that is to be computed, and no
request is overtaken by more than a window of others. What is cached is used before it is evicted, and short prefills do not wait behind
long ones.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


@dataclass(slots=True)
class _Waiting:
    priority: float
    overtaken: int = 0


class Turns(Generic[T]):
    """Items that wait, each once."""

    def __init__(self, window: int) -> None:
        """`window`: by how many younger ones each may be overtaken. 0: in order of arrival."""
        self._window = window
        self._waiting: dict[T, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T, cached: float, computed: float) -> None:
        self._waiting[item] = _Waiting(cached / max(computed, 1.0))

    def remove(self, item: T) -> None:
        """It waits no longer. Unknown items are ignored."""
        self._waiting.pop(item, None)

    def pop(self) -> T:
        """Whose turn it is. Raises `LookupError` if nobody waits."""
        if not self._waiting:
            raise LookupError("nobody waits")
        chosen = next((item for item, waiting in self._waiting.items() if waiting.overtaken >= self._window), None)
        if chosen is None:
            chosen = max(self._waiting, key=lambda item: self._waiting[item].priority)  # of equals the oldest
        for item, waiting in self._waiting.items():
            if item == chosen:
                break
            waiting.overtaken += 1
        del self._waiting[chosen]
        return chosen
