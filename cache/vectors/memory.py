"""Vectors in a dictionary, compared one by one: the contract of `VectorIndex` without a library."""

import threading
from collections.abc import Sequence
from dataclasses import replace

from cache.entry import Vector
from cache.vectors.base import Neighbour, VectorRecord, check_partition, check_record, check_vector, cosine


class MemoryIndex:
    """A `VectorIndex` for tests and small sets: a search compares with every vector that there is."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._lock = threading.Lock()
        self._records: dict[str, VectorRecord] = {}

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def staleness_s(self) -> float:
        return 0.0

    def upsert(self, records: Sequence[VectorRecord]) -> None:
        for record in records:
            check_record(record, self._dimension)
        with self._lock:
            self._records |= {record.id: replace(record, vector=record.vector.copy()) for record in records}

    def delete(self, ids: Sequence[str]) -> None:
        with self._lock:
            for entry_id in ids:
                self._records.pop(entry_id, None)

    def search(self, namespace: str, fingerprint: str, vector: Vector, k: int, at_least: float = -1.0) -> list[Neighbour]:
        check_partition(namespace, fingerprint)
        check_vector(vector, self._dimension)
        with self._lock:
            every = list(self._records.values())
        partition = [record for record in every if (record.namespace, record.fingerprint) == (namespace, fingerprint)]
        found = [Neighbour(record.id, cosine(float(vector @ record.vector))) for record in partition]
        return sorted(found, key=lambda neighbour: -neighbour.similarity)[: max(k, 0)]

    def scan(self, after: str, limit: int) -> list[str]:
        with self._lock:
            return sorted(entry_id for entry_id in self._records if entry_id > after)[: max(limit, 0)]

    def count(self) -> int:
        return len(self._records)

    def close(self) -> None:
        pass
