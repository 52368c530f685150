"""Vectors in FAISS, in memory: one exact index for each partition."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from cache.entry import Vector
from cache.errors import VectorIndexError
from cache.vectors.base import Neighbour, check_vector, cosine

Partition = tuple[str, str]


class FaissIndex:
    """A `VectorIndex` whose partitions are separate FAISS indexes: a search cannot see another partition's vectors.

    Searches are exact. One lock covers everything; a search of 100,000 vectors of 384 dimensions holds it for some 10 ms.
    """

    def __init__(self, dimension: int) -> None:
        self._faiss = _import_faiss()
        self._dimension = dimension
        self._lock = threading.Lock()
        self._partitions: dict[Partition, Any] = {}
        self._places: dict[str, tuple[Partition, int]] = {}
        """Where an id is: its partition, and the number by which FAISS knows it."""
        self._names: dict[int, str] = {}
        self._next_number = 0

    @property
    def dimension(self) -> int:
        return self._dimension

    def upsert(self, namespace: str, fingerprint: str, entry_id: str, vector: Vector) -> None:
        check_vector(vector, self._dimension)
        with self._lock:
            self._delete([entry_id])
            partition = (namespace, fingerprint)
            number = self._next_number
            self._next_number += 1
            self._partition(partition).add_with_ids(vector[np.newaxis], np.array([number], np.int64))
            self._places[entry_id] = (partition, number)
            self._names[number] = entry_id

    def delete(self, ids: Sequence[str]) -> None:
        with self._lock:
            self._delete(ids)

    def search(self, namespace: str, fingerprint: str, vector: Vector, k: int) -> list[Neighbour]:
        check_vector(vector, self._dimension)
        with self._lock:
            index = self._partitions.get((namespace, fingerprint))
            if index is None or k < 1:
                return []
            # One query gains nothing from more threads, and on busy cores loses milliseconds to their waiting for each
            # other. OpenMP keeps this number for each calling thread, so it is set by whoever searches.
            self._faiss.omp_set_num_threads(1)
            similarities, numbers = index.search(vector[np.newaxis], min(k, index.ntotal))
            found = zip(numbers[0].tolist(), similarities[0].tolist(), strict=True)
            return [Neighbour(self._names[number], cosine(similarity)) for number, similarity in found]

    def __len__(self) -> int:
        return len(self._places)

    def _partition(self, partition: Partition) -> Any:
        if partition not in self._partitions:
            self._partitions[partition] = self._faiss.IndexIDMap(self._faiss.IndexFlatIP(self._dimension))
        return self._partitions[partition]

    def _delete(self, ids: Sequence[str]) -> None:
        """Removes with one pass over each partition that is concerned, and drops those that are empty then."""
        numbers: defaultdict[Partition, list[int]] = defaultdict(list)
        for entry_id in ids:
            place = self._places.pop(entry_id, None)
            if place is not None:
                numbers[place[0]].append(place[1])
                del self._names[place[1]]
        for partition, gone in numbers.items():
            self._partitions[partition].remove_ids(np.array(gone, np.int64))
            if self._partitions[partition].ntotal == 0:
                del self._partitions[partition]


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        advice = "install the project with its extra `cpu` or `gpu`"
        raise VectorIndexError(f"FAISS is not installed ({error}): {advice}") from error
    return faiss
