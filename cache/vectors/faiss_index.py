"""Vectors in memory: exact partitions while they are small, codes computed by FAISS in front of large ones."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cache.entry import Vector
from cache.vectors.base import Neighbour, VectorRecord, check_partition, check_record, check_vector, cosine
from cache.vectors.codes import Codes, load_faiss
from cache.vectors.ids import SortedIds
from cache.vectors.partition import Partition

log = logging.getLogger(__name__)

FLAT_LIMIT = 8192
"""So many rows of 384 components are compared one by one in half a millisecond."""
GROWTH = 2
"""A quantiser is fitted anew when there are so many times the rows that its sample was drawn from."""
SPARE_DEAD = 8
MIN_TAIL, TAIL_SHARE = 1024, 50
"""Rows behind the codes, compared one by one, get codes when they are so many, and so large a part of those that have: codes are copied
to be extended."""


class FaissIndex:
    """A `VectorIndex` whose partitions lie apart: a search cannot see another partition's vectors.

    A partition is compared row by row until it has `flat_limit` rows, and then gets codes, which a background thread makes, extends
    and makes anew. Searches wait for nothing: not for writers, not for the background. Writers wait for each other.
    """

    def __init__(self, dimension: int, flat_limit: int = FLAT_LIMIT) -> None:
        load_faiss()
        self._dimension = dimension
        self._flat_limit = flat_limit
        self._lock = threading.RLock()
        """Of everything that writes."""
        self._partitions: dict[tuple[str, str], Partition] = {}
        self._places: dict[str, tuple[Partition, int]] = {}
        """Where an id is: its partition and its row there."""
        self._order = SortedIds(self._places)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="vectors")
        self._closed = False

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
            for record in {record.id: record for record in records}.values():
                if not self._holds(record):
                    self._forget(record.id)
                    self._add(record)

    def delete(self, ids: Sequence[str]) -> None:
        with self._lock:
            for entry_id in ids:
                self._forget(entry_id)

    def search(self, namespace: str, fingerprint: str, vector: Vector, k: int, at_least: float = -1.0) -> list[Neighbour]:
        check_partition(namespace, fingerprint)
        check_vector(vector, self._dimension)
        partition = self._partitions.get((namespace, fingerprint))
        if partition is None or k < 1:
            return []
        found = partition.view.search(np.ascontiguousarray(vector), k, at_least)
        return [Neighbour(name, cosine(product)) for product, name in found]

    def scan(self, after: str, limit: int) -> list[str]:
        with self._lock:
            return self._order.page(after, limit)

    def count(self) -> int:
        return len(self._places)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._background.shutdown(cancel_futures=True)

    def settle(self) -> None:
        """Returns when the background has nothing left to do: for tests and measurements."""
        while any(partition.busy for partition in list(self._partitions.values())):
            self._background.submit(lambda: None).result()

    def _holds(self, record: VectorRecord) -> bool:
        """Whether nothing would change: a batch that is repeated then leaves no dead rows behind."""
        partition, row = self._places.get(record.id, (None, 0))
        if partition is None or partition.key != (record.namespace, record.fingerprint):
            return False
        return np.array_equal(partition.view.rows[row], record.vector)

    def _add(self, record: VectorRecord) -> None:
        key = (record.namespace, record.fingerprint)
        partition = self._partitions.get(key) or self._partitions.setdefault(key, Partition(key, self._dimension))
        self._places[record.id] = (partition, partition.append(record.id, record.vector))
        self._order.add(record.id)
        self._care(partition)

    def _forget(self, entry_id: str) -> None:
        partition, row = self._places.pop(entry_id, (None, 0))
        if partition is None:
            return
        partition.forget(row)
        if partition.live == 0:
            del self._partitions[partition.key]
        else:
            self._care(partition)

    def _care(self, partition: Partition) -> None:
        """Does what is small at once, and leaves what is not to the background."""
        if partition.busy or self._closed or not self._is_due(partition):
            return
        if len(partition.view.names) <= self._flat_limit:
            self._renew(partition)
        else:
            partition.busy = True
            self._background.submit(self._work, partition)

    def _is_due(self, partition: Partition) -> bool:
        view = partition.view
        tail = min(self._flat_limit, max(MIN_TAIL, view.coded // TAIL_SHARE)) if view.codes else self._flat_limit
        return self._renewal_is_due(partition) or len(view.names) - view.coded > tail

    def _renewal_is_due(self, partition: Partition) -> bool:
        view = partition.view
        grown = view.codes is not None and len(view.names) > GROWTH * view.codes.trained_on
        return grown or partition.dead > SPARE_DEAD + len(view.names) // 4

    def _work(self, partition: Partition) -> None:
        try:
            while self._goes_on(partition):
                if partition.view.codes is None or self._renewal_is_due(partition):
                    self._renew(partition)
                else:
                    self._extend(partition)
        except Exception:
            log.exception("a partition of %d vectors got no new codes: searches in it are right, but slower", partition.live)
            partition.busy = False

    def _goes_on(self, partition: Partition) -> bool:
        with self._lock:  # so that no change falls between the last look and the end
            partition.busy = self._is_due(partition) and self._partitions.get(partition.key) is partition and not self._closed
            return partition.busy

    def _extend(self, partition: Partition) -> None:
        """Codes for the rows that have none."""
        view = partition.view
        if view.codes is not None:
            codes = view.codes.extended(view.rows[view.coded : view.size])
            with self._lock:
                partition.view = partition.view._replace(codes=codes)

    def _renew(self, partition: Partition) -> None:
        """Leaves the dead rows out, and makes codes of the others if they are many."""
        view = partition.view  # once: a writer may put a larger one in its place
        size = view.size
        kept = [row for row, name in enumerate(view.names[:size]) if name is not None]
        rows = np.empty((max(1, len(kept) + min(len(kept), self._flat_limit)), self._dimension), np.float32)
        rows[: len(kept)] = view.rows[kept]
        codes = Codes.of(rows[: len(kept)]) if len(kept) > self._flat_limit else None
        with self._lock:
            partition.compact(size, kept, rows, codes)
            for row, name in enumerate(partition.view.names):
                if name is not None:
                    self._places[name] = (partition, row)
