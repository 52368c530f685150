"""Recent vectors, so that a writer finds its own write although the index is behind."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from cache.entry import Vector
from cache.vectors.base import Neighbour, VectorRecord, cosine

MAX_RECORDS = 4096


class Overlay:
    """The last vectors of this process, compared one by one. Thread-safe. `clock` gives seconds, on any scale.

    Holds `max_records` at most; the oldest go first, which costs a hit until the index has them.
    """

    def __init__(self, clock: Callable[[], float], max_records: int = MAX_RECORDS) -> None:
        self._clock = clock
        self._max_records = max_records
        self._lock = threading.Lock()
        self._records: OrderedDict[str, VectorRecord] = OrderedDict()
        self._until: dict[str, float] = {}

    def add(self, record: VectorRecord) -> None:
        with self._lock:
            self._records[record.id] = record
            self._until.pop(record.id, None)
            while len(self._records) > self._max_records:
                self._drop(next(iter(self._records)))

    def settle(self, ids: Sequence[str], after_s: float) -> None:
        """The index shows these from `after_s` seconds on: then they are forgotten here."""
        until = self._clock() + after_s
        with self._lock:
            self._until |= {entry_id: until for entry_id in ids if entry_id in self._records}

    def search(self, namespace: str, fingerprint: str, vector: Vector, k: int) -> list[Neighbour]:
        """As `VectorIndex.search`."""
        now = self._clock()
        with self._lock:
            for entry_id in [each for each, until in self._until.items() if until <= now]:
                self._drop(entry_id)
            near = [each for each in self._records.values() if (each.namespace, each.fingerprint) == (namespace, fingerprint)]
        if not near:
            return []
        similarities = np.stack([each.vector for each in near]) @ vector
        found = [Neighbour(each.id, cosine(float(similarity))) for each, similarity in zip(near, similarities, strict=True)]
        return sorted(found, key=lambda neighbour: -neighbour.similarity)[:k]

    def __len__(self) -> int:
        return len(self._records)

    def _drop(self, entry_id: str) -> None:
        self._records.pop(entry_id, None)
        self._until.pop(entry_id, None)
