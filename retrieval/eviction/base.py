"""The contract of eviction policies.

A policy keeps the names of the blocks that a tier holds and says which of them go next; where the blocks lie is its owner's business. It
has no clock: order comes from its calls alone. Blocks form chains, and those of prompts with a common prefix form trees: a block is of use
only while everything before it is there, in this tier or a faster one. So of a chain the end goes first.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Use(Generic[K]):
    """What one request used, told once it is known."""

    keys: Sequence[K]
    """Blocks of one chain, from its head on. Those that the tier does not hold are passed over."""
    inserted: AbstractSet[K] = frozenset()
    """Those that it computed itself; the others it found."""
    cost: float = 0.0
    """Seconds a token, of what it computed."""


class EvictionPolicy(ABC, Generic[K]):
    """For a tier of `capacity` blocks. The owner sees to it that it never inserts more.

    Not thread-safe. Operations take O(log capacity) for each key, amortised.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._pins: dict[K, int] = {}

    @abstractmethod
    def __contains__(self, key: K) -> bool:
        """Whether the tier holds this block."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[K]: ...

    @abstractmethod
    def insert(self, key: K, parent: K | None = None) -> None:
        """A block that the tier does not hold comes to it. `parent` is the one before it, held or not; None: none, or not known."""

    @abstractmethod
    def remove(self, key: K) -> None:
        """The block is gone for a reason of its owner's, pinned or not. Raises `KeyError` for one that is not held."""

    @abstractmethod
    def used(self, use: Use[K]) -> None:
        """A request is through with the tier. Once for each request: all its uses of a block count as one."""

    @abstractmethod
    def evict(self, n: int, protected: Collection[K] = frozenset()) -> list[K] | None:
        """Gives up exactly `n` blocks, neither pinned nor protected ones, in the order given. None, and no change, if there are fewer."""

    def missed(self, keys: Sequence[K]) -> None:
        """These blocks, in the order of their chain, are about to be inserted: somebody had to compute them."""

    def pin(self, key: K) -> None:
        """The block is being read or written, and stays until `unpin` was called as often."""
        self._pins[key] = self._pins.get(key, 0) + 1

    def unpin(self, key: K) -> None:
        if self._pins[key] == 1:
            del self._pins[key]
        else:
            self._pins[key] -= 1

    @abstractmethod
    def clear(self) -> None:
        """Forgets everything, pins and what was learnt included."""
