"""Vectors in Milvus, or in Milvus Lite."""

import threading
from collections.abc import Sequence
from typing import Any

from cache.entry import Vector
from cache.vectors.base import Neighbour, VectorRecord, check_partition, check_record, check_vector, cosine, is_id
from cache.vectors.milvus_connection import MilvusConnection

BATCH = 500
"""Records in one call: 3 MB at 1,536 dimensions, where a server takes 64."""
EF = 128
"""How many candidates a search follows in the graph."""
BOUNDED_S = 5.0
"""How far behind a search of the level Bounded may be: Milvus's `common.gracefulTime`, unless somebody configured another."""


class MilvusIndex:
    """A `VectorIndex` in one collection of a Milvus server (2.3 or newer), which is made when it is missing.

    Calls end in time (see `MilvusConnection`): after `search_timeout_s` a search, after `write_timeout_s` the rest,
    counted for each batch of a write. A server that went away is found again.

    Rows that the server has not indexed yet, the young ones, it searches through an interim index (16 of 128 lists): there a search
    finds 98 of 100 neighbours whose similarity is 0.9, 90 whose similarity is 0.8, and fewer of those further away.

    The collection has no partition key. Where there is one, Milvus 2.3 puts upserted rows where filtered searches do not look; and
    to delete and then insert instead can leave an id twice, when two processes do so at once.
    """

    def __init__(
        self,
        uri: str,
        collection: str,
        dimension: int,
        *,
        token: str = "",
        database: str = "",
        staleness_s: float = BOUNDED_S,
        search_timeout_s: float = 2.0,
        write_timeout_s: float = 30.0,
    ) -> None:
        """`uri`: `http://host:port`, `https://...`, or for Milvus Lite a path that ends in `.db`. `token`: `user:password`, or a key."""
        self._connection = MilvusConnection(uri, collection, dimension, token, database)
        self._dimension = dimension
        self._staleness_s = staleness_s
        self._search_timeout_s, self._write_timeout_s = search_timeout_s, write_timeout_s
        self._writing = threading.Lock()
        """Milvus Lite takes one writer at a time, and a server gains nothing from more of one process."""

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def staleness_s(self) -> float:
        return self._staleness_s

    def upsert(self, records: Sequence[VectorRecord]) -> None:
        for record in records:
            check_record(record, self._dimension)
        rows = list({record.id: _row(record) for record in records}.values())
        for start in range(0, len(rows), BATCH):
            self._write("take vectors", "upsert", data=rows[start : start + BATCH])

    def delete(self, ids: Sequence[str]) -> None:
        known = [entry_id for entry_id in ids if is_id(entry_id)]
        for start in range(0, len(known), BATCH):
            self._write("delete vectors", "delete", ids=known[start : start + BATCH])

    def search(self, namespace: str, fingerprint: str, vector: Vector, k: int, at_least: float = -1.0) -> list[Neighbour]:
        check_vector(vector, self._dimension)
        check_partition(namespace, fingerprint)  # they become part of the filter
        if k < 1:
            return []
        found = self._connection.call(
            "search",
            "search",
            self._search_timeout_s,
            data=[vector],
            anns_field="vector",
            limit=k,
            filter=f'namespace == "{namespace}" and fingerprint == "{fingerprint}"',
            search_params={"metric_type": "COSINE", "params": {"ef": max(EF, k)}},
            consistency_level="Bounded",
        )
        return [Neighbour(hit["id"], cosine(hit["distance"])) for hit in found[0]]

    def scan(self, after: str, limit: int) -> list[str]:
        if limit < 1:
            return []
        # What pymilvus's own iterator asks: a query that comes in the order of the primary key, and is as fresh as the collection's
        # level says. The iterator makes two more calls before, one of them without a time limit.
        rows = self._connection.call(
            "list ids",
            "query",
            self._write_timeout_s,
            filter=f'id > "{after}"' if is_id(after) else 'id != ""',
            output_fields=["id"],
            limit=limit,
            iterator="True",
            reduce_stop_for_best="True",
        )
        return [row["id"] for row in rows]

    def count(self) -> int:
        fields = ["count(*)"]
        rows = self._connection.call("count", "query", self._write_timeout_s, filter="", output_fields=fields, consistency_level="Bounded")
        return int(rows[0]["count(*)"])

    def collections(self, prefix: str) -> list[str]:
        """The names of all collections that begin so, in order: to find what another embedder left behind."""
        return sorted(name for name in self._connection.collections(self._write_timeout_s) if name.startswith(prefix))

    def drop(self) -> None:
        """Removes the collection with all that it holds. The next call makes an empty one."""
        with self._writing:
            self._connection.drop(self._write_timeout_s)

    def close(self) -> None:
        self._connection.close()

    def _write(self, purpose: str, method: str, **arguments: Any) -> None:
        with self._writing:
            self._connection.call(purpose, method, self._write_timeout_s, **arguments)


def _row(record: VectorRecord) -> dict[str, Any]:
    return {"id": record.id, "namespace": record.namespace, "fingerprint": record.fingerprint, "vector": record.vector}
