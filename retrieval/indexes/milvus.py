"""Versions of collections in Milvus, for retrieval on more than one machine."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache.entry import Vector
from cache.errors import VectorIndexError
from cache.vectors.base import check_partition, check_vector
from cache.vectors.milvus import BATCH, BOUNDED_S, EF
from cache.vectors.milvus_connection import LENGTH, MilvusConnection
from retrieval.indexes.base import NONE, Found, RowIds, Selection, Slices, best
from retrieval.indexes.checks import check_slice

log = logging.getLogger(__name__)

FIRST_EF = 16
"""Candidates that the first of two searches follows."""
MAX_FOUND = 16_384
"""What Milvus answers at most."""
MAX_SELECTED = 100_000
"""Rows of a selection that is sent with each search. A wider one is looked for among the nearest of all rows."""
WIDER = 8
"""How many times as many of these are looked at when too few of the last ones were among the selected."""
MAX_HIDDEN = 10_000
"""Removed rows that older versions may still be searched for, and that each search of this one names."""


class ChunkConnection(MilvusConnection):
    """A Milvus collection of chunks' rows. `scope` says whose and of which collection of ours a row is, `born` since which version.

    Like the cache's, it has no partition key, so that `upsert` can be trusted.
    """

    def _schema(self, client: Any) -> Any:
        kinds = self._pymilvus.DataType
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", kinds.INT64, is_primary=True)
        schema.add_field("scope", kinds.VARCHAR, max_length=LENGTH)
        schema.add_field("born", kinds.INT64)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=self._dimension)
        return schema

    def _make_indexes(self, client: Any, timeout_s: float) -> None:
        try:
            scopes = client.prepare_index_params()
            scopes.add_index("scope", index_type="INVERTED")
            client.create_index(self._collection, scopes, timeout=timeout_s)
        except self._pymilvus.MilvusException as error:
            log.info("filters read every row, because this Milvus has no inverted index: %s", error.message)
        vectors = client.prepare_index_params()
        vectors.add_index("vector", index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 128})
        client.create_index(self._collection, vectors, timeout=timeout_s)

    def _check(self, description: dict[str, Any]) -> None:
        fields = {field["name"]: field.get("params", {}) for field in description["fields"]}
        if int(fields.get("vector", {}).get("dim", 0)) != self._dimension or not {"row", "scope", "born"} <= fields.keys():
            raise VectorIndexError(
                f"the Milvus collection {self._collection} is not one of ours for chunks' vectors of {self._dimension} components: "
                "drop it, or choose another name"
            )


@dataclass(frozen=True, slots=True)
class MilvusChunks:
    """Chunks of all collections whose vectors one encoder made, in one Milvus collection. Thread-safe."""

    connection: ChunkConnection
    dimension: int
    clock: Callable[[], float] = time.monotonic
    """In seconds."""
    staleness_s: float = BOUNDED_S
    """How far behind a search of the level Bounded may be: younger versions are searched with the level Strong. 0 for Milvus Lite."""
    search_timeout_s: float = 2.0
    write_timeout_s: float = 30.0
    writing: threading.Lock = field(default_factory=threading.Lock)
    """Milvus Lite takes one writer at a time, and a server gains nothing from more of one process."""

    @classmethod
    def at(
        cls, uri: str, collection: str, dimension: int, *, token: str = "", database: str = "", staleness_s: float = BOUNDED_S
    ) -> "MilvusChunks":
        """As `cache.vectors.milvus.MilvusIndex`; `collection` is for these chunks alone. No server is asked before the first call."""
        return cls(ChunkConnection(uri, collection, dimension, token, database), dimension, staleness_s=staleness_s)

    def version(self, scope: str, version: int) -> "MilvusChunkIndex":
        """A version that was written, by whatever process. `scope` is hexadecimal: a hash of a namespace and a collection's id."""
        check_partition(scope, scope)
        return MilvusChunkIndex(self, scope, version)

    def forget(self, scope: str, after: int = -1) -> None:
        """Deletes all rows of the scope that were born after that version: 100,000 in a second."""
        check_partition(scope, scope)
        self.write("delete vectors", "delete", filter=f"{_of(scope)} and born > {after}")

    def write(self, purpose: str, method: str, **arguments: Any) -> None:
        with self.writing:
            self.connection.call(purpose, method, self.write_timeout_s, **arguments)

    def drop(self) -> None:
        """Removes the Milvus collection, with all of ours."""
        self.connection.drop(self.write_timeout_s)

    def close(self) -> None:
        self.connection.close()


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """A `Selection` of one `MilvusChunkIndex`."""

    index: "MilvusChunkIndex"
    rows: RowIds
    is_wide: bool = False
    """More than can be sent, and so not compared with what the index has."""

    def __len__(self) -> int:
        return len(self.rows)


class MilvusChunkIndex:
    """A `ChunkIndex`: the rows of a scope that were born at this version or before.

    Rows that `changed` removes are left out of searches of the new version, and deleted when the second version after it is made; more
    than `MAX_HIDDEN` are deleted at once. So while a version is made, the two before it can be searched to the end; older ones may miss
    rows. Whoever opens a version in another process may find rows that it has removed: they are no longer in SQL.
    """

    kind = "milvus"

    def __init__(self, chunks: MilvusChunks, scope: str, version: int, hidden: tuple[RowIds, RowIds] = (NONE, NONE)) -> None:
        """`hidden`: rows that were removed in the version before this one, and in this one."""
        self._chunks, self._scope, self._hidden = chunks, scope, hidden
        self._since = chunks.clock()
        self.version = version
        self.dimension = chunks.dimension

    def __len__(self) -> int:
        found = self._query("count", output_fields=["count(*)"], filter=self._filter())
        return int(found[0]["count(*)"])

    @property
    def rows(self) -> RowIds:
        """All rows that can be found, in ascending order: to be compared with those in SQL."""
        pages: list[RowIds] = [NONE]
        while len(pages) == 1 or len(pages[-1]) == MAX_FOUND:
            after = int(pages[-1][-1]) if len(pages[-1]) else -1
            # What pymilvus's own iterator asks: a query that comes in the order of the primary key.
            ordered = {"iterator": "True", "reduce_stop_for_best": "True"}
            pages.append(self._ids(filter=f"{self._filter()} and row > {after}", limit=MAX_FOUND, **ordered))
        return np.concatenate(pages)

    def select(self, rows: RowIds) -> Selection:
        rows = np.unique(np.asarray(rows, np.int64))
        if len(rows) > MAX_SELECTED:
            return Picked(self, rows, is_wide=True)
        return Picked(self, self._known(self._filter(), rows))

    def search(self, vector: Vector, k: int, allowed: Selection | None = None) -> list[Found]:
        picked = self._checked(vector, allowed)
        return self._searched_wide(vector, k, picked.rows) if picked and picked.is_wide else self._search(vector, k, picked, EF)

    def stages(self, vector: Vector, k: int, allowed: Selection | None = None) -> Iterator[list[Found]]:
        """Two searches: Milvus tells nothing while it searches."""
        picked = self._checked(vector, allowed)
        if picked is None or not picked.is_wide:
            yield self._search(vector, k, picked, FIRST_EF)
        yield self.search(vector, k, allowed)

    def changed(self, version: int, added: Slices, removed: RowIds) -> "MilvusChunkIndex":
        """May be repeated, by this or another process, after an error or not: rows that were born at `version` are written again."""
        gone = np.unique(np.asarray(removed, np.int64))
        self._delete(self._hidden[0])
        for rows, vectors in added:
            check_slice(rows, vectors, self.dimension)
            self._add(version, rows, vectors, gone)
        if len(gone) > MAX_HIDDEN:
            self._delete(gone)
            gone = NONE
        return MilvusChunkIndex(self._chunks, self._scope, version, (self._hidden[1], gone))

    def _add(self, version: int, rows: RowIds, vectors: Vector, gone: RowIds) -> None:
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            if len(np.unique(some)) < len(some) or len(np.setdiff1d(self._known(self._filter(), some), gone)):
                raise VectorIndexError("a row that is in the index already cannot be added: remove it, or leave it")
            records = zip(some.tolist(), vectors[start : start + BATCH], strict=True)
            data = [{"row": row, "scope": self._scope, "born": version, "vector": np.ascontiguousarray(vector)} for row, vector in records]
            self._chunks.write("take vectors", "upsert", data=data)

    def _delete(self, rows: RowIds) -> None:
        for start in range(0, len(rows), BATCH):
            self._chunks.write("delete vectors", "delete", ids=rows[start : start + BATCH].tolist())

    def _search(self, vector: Vector, k: int, picked: Picked | None, ef: int) -> list[Found]:
        if k < 1 or (picked is not None and not len(picked)):
            return []
        count = min(k, MAX_FOUND)
        found = self._chunks.connection.call(
            "search",
            "search",
            self._chunks.search_timeout_s,
            data=[np.ascontiguousarray(vector)],
            anns_field="vector",
            limit=count,
            filter=self._filter() if picked is None else f"{self._filter()} and {_among(picked.rows)}",
            search_params={"metric_type": "COSINE", "params": {"ef": max(ef, count)}},
            consistency_level=self._level(),
        )
        rows, scores = [_row(hit) for hit in found[0]], [hit["distance"] for hit in found[0]]
        return best(np.array(rows, np.int64), np.array(scores, np.float32), k)

    def _searched_wide(self, vector: Vector, k: int, rows: RowIds) -> list[Found]:
        """The nearest of all rows until there are enough of these among them, or `MAX_FOUND`."""
        wide = k
        while True:
            wide = min(WIDER * wide, MAX_FOUND)
            found = self._search(vector, wide, None, EF)
            accepted = np.isin(np.array([each.row for each in found], np.int64), rows)
            hits = [each for each, is_accepted in zip(found, accepted.tolist(), strict=True) if is_accepted]
            if len(hits) >= k or wide == MAX_FOUND:
                return hits[:k]

    def _checked(self, vector: Vector, allowed: Selection | None) -> Picked | None:
        check_vector(vector, self.dimension)
        if allowed is None:
            return None
        if not isinstance(allowed, Picked) or allowed.index is not self:
            raise VectorIndexError("a selection belongs to the version of the index that made it: make one of this version")
        return allowed

    def _level(self) -> str:
        """A version may be as young as this object, if another process has just written it."""
        return "Strong" if self._chunks.clock() < self._since + self._chunks.staleness_s else "Bounded"

    def _filter(self) -> str:
        seen = f"{_of(self._scope)} and born <= {self.version}"
        hidden = np.concatenate(self._hidden)
        return f"{seen} and not ({_among(hidden)})" if len(hidden) else seen

    def _known(self, condition: str, rows: RowIds) -> RowIds:
        """Those of the rows that the condition is true for, in ascending order."""
        batches = [rows[start : start + MAX_FOUND] for start in range(0, len(rows), MAX_FOUND)]
        found = [self._ids(filter=f"{condition} and {_among(some)}", limit=MAX_FOUND) for some in batches]
        return np.sort(np.concatenate([NONE, *found]))

    def _ids(self, **arguments: Any) -> RowIds:
        found = self._query("list rows", output_fields=["row"], **arguments)
        return np.array([each["row"] for each in found], np.int64)

    def _query(self, purpose: str, **arguments: Any) -> Sequence[dict[str, Any]]:
        """As fresh as the Milvus collection's own level says, which is Strong: a page in order cannot choose another."""
        found: Sequence[dict[str, Any]] = self._chunks.connection.call(purpose, "query", self._chunks.write_timeout_s, **arguments)
        return found


def _of(scope: str) -> str:
    return f'scope == "{scope}"'


def _row(hit: Any) -> int:
    """Only newer servers tell the primary key's name with what they found; of others, pymilvus calls it `id`."""
    return int(hit["row"] if "row" in hit else hit["id"])


def _among(rows: RowIds) -> str:
    return f"row in {rows.tolist()}"
