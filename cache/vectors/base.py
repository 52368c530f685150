"""The contract of vector indexes: a rebuildable way to find candidates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cache.entry import Vector


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A candidate: `similarity` is the cosine in [-1, 1], larger is closer, on every backend."""

    id: str
    similarity: float


class VectorIndex(Protocol):
    """Finds vectors by cosine similarity inside one partition. Thread-safe; may raise `VectorIndexError`.

    A partition is (namespace, fingerprint). A search never returns an id of another partition.
    """

    @property
    def dimension(self) -> int:
        """Length of every vector."""

    def upsert(self, namespace: str, fingerprint: str, entry_id: str, vector: Vector) -> None:
        """Adds the unit vector under this id, or moves the id to it."""

    def delete(self, ids: Sequence[str]) -> None:
        """Forgets these ids. Unknown ids are ignored."""

    def search(self, namespace: str, fingerprint: str, vector: Vector, k: int) -> list[Neighbour]:
        """At most `k` neighbours of a unit vector, closest first. An empty partition has none."""

    def __len__(self) -> int:
        """How many ids the index holds."""
