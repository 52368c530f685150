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


@dataclass(frozen=True, slots=True)
class VectorRecord:
    """What an index holds of an entry. `namespace` and `fingerprint` are hexadecimal hashes, `id` has letters, digits and `-` only."""

    id: str
    namespace: str
    fingerprint: str
    vector: Vector


class VectorIndex(Protocol):
    """Finds vectors by cosine similarity inside one partition. Thread-safe; every call may block, and may raise `VectorIndexError`.

    A partition is (namespace, fingerprint). A search never returns an id of another partition. What `check_record` refuses is
    refused. An index may be behind: what was written may be missing from, and what was deleted still be in, a search of the next
    `staleness_s` seconds; nothing that is found counts before the store has confirmed it.
    """

    @property
    def dimension(self) -> int:
        """Length of every vector."""

    @property
    def staleness_s(self) -> float:
        """How far behind a search may be, in seconds. 0: a search sees every finished write."""

    def upsert(self, records: Sequence[VectorRecord]) -> None:
        """Adds the records, or moves their ids to them. All or, on an error, perhaps some: to be repeated. Idempotent.

        Of records with one id the last counts.
        """

    def delete(self, ids: Sequence[str]) -> None:
        """Forgets these ids. Unknown ids are ignored."""

    def search(self, namespace: str, fingerprint: str, vector: Vector, k: int) -> list[Neighbour]:
        """At most `k` neighbours of a unit vector, closest first. An empty or unknown partition has none.

        May be approximate in large partitions: then at least 95 of 100 nearest neighbours are found.
        """

    def scan(self, after: str, limit: int) -> list[str]:
        """At most `limit` ids above `after`, in ascending order: to compare the index with the store. Sees every finished write."""

    def count(self) -> int:
        """How many ids the index holds, at most `staleness_s` ago."""

    def close(self) -> None:
        """Releases connections. Calling it twice is harmless."""


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
