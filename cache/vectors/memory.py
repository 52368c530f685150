"""Vectors in a dictionary, compared one by one: the contract of `VectorIndex` without a library."""

import threading
from collections.abc import Sequence

from cache.entry import Vector
from cache.vectors.base import Neighbour, check_vector, cosine


class MemoryIndex:
    """A `VectorIndex` for tests and small sets: a search compares with every vector that there is."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._lock = threading.Lock()
        self._vectors: dict[str, tuple[str, str, Vector]] = {}

    @property
    def dimension(self) -> int:
        return self._dimension

    def upsert(self, namespace: str, fingerprint: str, entry_id: str, vector: Vector) -> None:
        check_vector(vector, self._dimension)
        with self._lock:
            self._vectors[entry_id] = (namespace, fingerprint, vector.copy())

    def delete(self, ids: Sequence[str]) -> None:
        with self._lock:
            for entry_id in ids:
                self._vectors.pop(entry_id, None)

    def search(self, namespace: str, fingerprint: str, vector: Vector, k: int) -> list[Neighbour]:
        check_vector(vector, self._dimension)
        with self._lock:
            every = list(self._vectors.items())
        partition = [(entry_id, other) for entry_id, (*place, other) in every if place == [namespace, fingerprint]]
        found = [Neighbour(entry_id, cosine(float(vector @ other))) for entry_id, other in partition]
        return sorted(found, key=lambda neighbour: -neighbour.similarity)[: max(k, 0)]

    def __len__(self) -> int:
        return len(self._vectors)
