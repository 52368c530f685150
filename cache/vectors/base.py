"""The contract of vector indexes: a rebuildable way to find candidates."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cache.entry import Vector
from cache.errors import VectorIndexError

UNIT_TOLERANCE = 1e-3
"""How far a unit vector's length may be from 1."""
_HASH = re.compile(r"[0-9a-fA-F]{1,64}")
_ID = re.compile(r"[0-9a-zA-Z-]{1,64}")


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

    def search(self, namespace: str, fingerprint: str, vector: Vector, k: int, at_least: float = -1.0) -> list[Neighbour]:
        """At most `k` neighbours of a unit vector, closest first. An empty or unknown partition has none.

        May be approximate in large partitions: then at least 95 of 100 nearest neighbours are found. Those less similar than
        `at_least` are not wanted: the index may look for them or not, and may find only 9 of 10 of those that are hardly more similar.
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


def check_partition(namespace: str, fingerprint: str) -> None:
    """Raises `VectorIndexError` unless both are hexadecimal, of 1 to 64 characters: they become part of filters."""
    for name, value in (("namespace", namespace), ("fingerprint", fingerprint)):
        if not _HASH.fullmatch(value):
            raise VectorIndexError(f"a {name} of 1 to 64 hexadecimal characters is needed")


def is_id(text: str) -> bool:
    """Whether this can be an id: letters, digits and `-`, 1 to 64 of them."""
    return _ID.fullmatch(text) is not None


def check_record(record: VectorRecord, dimension: int) -> None:
    """Raises `VectorIndexError` unless every index can hold the record. The message repeats no value."""
    if not is_id(record.id):
        raise VectorIndexError("an id of 1 to 64 letters, digits and `-` is needed")
    check_partition(record.namespace, record.fingerprint)
    check_vector(record.vector, dimension)


def cosine(inner_product: float) -> float:
    """The similarity of two float32 unit vectors, without rounding noise: to itself a vector has 1, not 0.99999994 or 1.0000001."""
    return max(-1.0, min(1.0, round(inner_product, 6)))
