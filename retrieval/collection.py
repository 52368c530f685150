"""One version of a collection, to be searched: its index, and what it consists of."""

import threading
from collections import OrderedDict
from collections.abc import Iterator

from cache.entry import Vector
from retrieval.filters import Filter
from retrieval.indexes.base import ChunkIndex, Found, Selection
from retrieval.members import Members

MAX_SELECTIONS = 16
"""Filters of one version that are kept prepared; all of them but the last have no more rows together than the collection."""


class Collection:
    """Never changes, so a reader cannot see a mixture. Thread-safe. Calls may raise `cache.errors.VectorIndexError`."""

    def __init__(self, number: int, index: ChunkIndex, members: Members) -> None:
        """`number`: in SQL, where no other collection ever gets it. The index has the rows of `members`."""
        self.number = number
        self.index = index
        self.members = members
        self._selections: OrderedDict[str, Selection] = OrderedDict()
        """By filters' digests."""
        self._lock = threading.Lock()

    @property
    def version(self) -> int:
        return self.index.version

    def search(self, vector: Vector, k: int, filters: Filter | None = None) -> list[Found]:
        """At most `k` rows nearest to a unit vector, of documents that the filter accepts; best first, rows of one score ascending."""
        return self.index.search(vector, k, None if filters is None else self._selection(filters))

    def stages(self, vector: Vector, k: int, filters: Filter | None = None) -> Iterator[list[Found]]:
        """See `retrieval.indexes.base.ChunkIndex.stages`."""
        return self.index.stages(vector, k, None if filters is None else self._selection(filters))

    def _selection(self, filters: Filter) -> Selection:
        name = filters.digest
        with self._lock:
            if name in self._selections:
                self._selections.move_to_end(name)
                return self._selections[name]
        made = self.index.select(self.members.matching(filters.matches))
        with self._lock:
            self._selections[name] = made
            while len(self._selections) > MAX_SELECTIONS or self._selected() > max(len(self.members.rows), len(made)):
                self._selections.popitem(last=False)
        return made

    def _selected(self) -> int:
        return sum(len(each) for each in self._selections.values())
