"""One version of a collection, to be searched: its index, and what it consists of."""

import threading
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np

from cache.entry import Vector
from retrieval.filters import Filter
from retrieval.indexes.base import ChunkIndex, Found, RowIds, Selection
from retrieval.indexes.milvus import MAX_FOUND, MAX_SELECTED
from retrieval.members import Members

MAX_SELECTIONS = 16
"""Filters of one version that are kept prepared; all of them but the last have no more rows together than the collection."""
WIDER = 8
"""How many times as many rows are looked at when too few of the last ones were acceptable."""


class Collection:
    """Never changes, so a reader cannot see a mixture. Thread-safe. Calls may raise `cache.errors.VectorIndexError`."""

    def __init__(self, number: int, index: ChunkIndex, members: Members) -> None:
        """`number`: in SQL, where no other collection ever gets it. The index has the rows of `members`."""
        self.number = number
        self.index = index
        self.members = members
        self._selections: OrderedDict[str, Selection] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def version(self) -> int:
        return self.index.version

    def search(self, vector: Vector, k: int, filters: Filter | None = None) -> list[Found]:
        """At most `k` rows nearest to a unit vector, of documents that the filter accepts; best first, rows of one score ascending."""
        selection = None if filters is None else self._selection(filters)
        if isinstance(selection, _Wide):
            return self._among(vector, k, selection.rows)
        return self.index.search(vector, k, selection)

    def stages(self, vector: Vector, k: int, filters: Filter | None = None) -> Iterator[list[Found]]:
        """See `retrieval.indexes.base.ChunkIndex.stages`."""
        selection = None if filters is None else self._selection(filters)
        if isinstance(selection, _Wide):
            return iter((self._among(vector, k, selection.rows),))
        return self.index.stages(vector, k, selection)

    def _selection(self, filters: Filter) -> "Selection | _Wide":
        name = filters.canonical
        with self._lock:
            if name in self._selections:
                self._selections.move_to_end(name)
                return self._selections[name]
        rows = self.members.matching(filters.matches)
        is_too_wide = self.index.kind == "milvus" and len(rows) > MAX_SELECTED
        made = _Wide(rows) if is_too_wide else self.index.select(rows)
        with self._lock:
            self._selections[name] = made
            while len(self._selections) > MAX_SELECTIONS or self._selected() > max(len(self.members.rows), len(made)):
                self._selections.popitem(last=False)
        return made

    def _selected(self) -> int:
        return sum(len(each) for each in self._selections.values())

    def _among(self, vector: Vector, k: int, rows: RowIds) -> list[Found]:
        """The nearest of all rows until there are enough of these among them, or `MAX_FOUND`."""
        wide, most = k, min(MAX_FOUND, len(self.members.rows))
        while True:
            wide = min(WIDER * wide, most)
            found = self.index.search(vector, wide)
            accepted = np.isin(np.array([each.row for each in found], np.int64), rows)
            hits = [each for each, is_accepted in zip(found, accepted.tolist(), strict=True) if is_accepted]
            if len(hits) >= k or wide == most:
                return hits[:k]


class _Wide:
    """More rows than Milvus can be sent with each search."""

    def __init__(self, rows: RowIds) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)
