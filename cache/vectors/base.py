"""The contract of vector indexes: a rebuildable way to find candidates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cache.entry import Vector
from cache.errors import VectorIndexError

UNIT_TOLERANCE = 1e-3
"""How far a unit vector's length may be from 1."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A candidate: `similarity` is the cosine in [-1, 1], larger is closer, on every backend."""

    id: str
    similarity: float


class VectorIndex(Protocol):
    """Finds vectors by cosine similarity inside one partition. Thread-safe; may raise `VectorIndexError`.

    A partition is (namespace, fingerprint). A search never returns an id of another partition.
    Vectors that `check_vector` refuses are refused.
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


def check_vector(vector: Vector, dimension: int) -> None:
    """Raises `VectorIndexError` unless this is a finite float32 vector of this dimension and of length 1."""
    if vector.shape != (dimension,) or vector.dtype != np.float32:
        raise VectorIndexError(f"a float32 vector of shape ({dimension},) is needed, not {vector.dtype} of shape {vector.shape}")
    length = float(np.linalg.norm(vector))
    if not abs(length - 1) <= UNIT_TOLERANCE:  # also true for NaN
        raise VectorIndexError(f"a unit vector is needed, not one of length {length:g}")


def cosine(inner_product: float) -> float:
    """The similarity of two float32 unit vectors, without rounding noise: to itself a vector has 1, not 0.99999994 or 1.0000001."""
    return max(-1.0, min(1.0, round(inner_product, 6)))
