"""Makes versions of collections: from SQL, from what is kept of their indexes, and from each other."""

import logging
from collections.abc import Iterable, Iterator

import numpy as np

from retrieval.collection import Collection
from retrieval.errors import StorageError
from retrieval.indexes.base import NONE, ChunkIndex, RowIds, Slices
from retrieval.members import Members
from retrieval.reads import Changes, ChunkVectors, Inventory, Numbers, SeenDocument, State
from retrieval.sources import IndexSource, index_name
from retrieval.store import DocumentStore

log = logging.getLogger("ray.serve")

SLICE = 4096
"""Rows that are read from SQL at a time: 6 MB at 384 dimensions."""
COMPARED = 8
"""Rows of a kept index whose vectors are compared with those in SQL, the youngest among them."""
EQUAL = 0.999
"""Cosine of one vector with itself, on any backend."""
TRIES = 8

Key = tuple[str, str]
"""Namespace and id."""


def serves(collection: Collection, state: State) -> bool:
    """Whether it is of that state, or newer."""
    return (collection.number, collection.version) >= state


class CollectionReader:
    """Thread-safe. What it makes has exactly the rows of one version in SQL."""

    def __init__(self, store: DocumentStore, source: IndexSource) -> None:
        self._store = store
        self._source = source

    def newest(self, key: Key, collection: Collection | None, state: State) -> Collection:
        """Of `state` or newer; from an older version of the same collection, if there is one.

        Raises `UnknownStoreError`, `StorageError`, `cache.errors.VectorIndexError`.
        """
        is_whole = True
        for _ in range(TRIES):
            if collection is None or collection.number < state.store:
                collection, is_whole = self._opened(key)
            if is_whole and serves(collection, state):
                return collection
            changes = self._store.changes(*key, collection.version)
            if changes.store != collection.number or changes.version < collection.version:  # another one, or a backup was brought back
                collection, state = None, State(changes.store, changes.version)
            elif changes.gone is None:
                collection, is_whole = self._matched(key, collection.index, self._store.inventory(*key))
            else:
                collection, is_whole = self._changed(key, collection, changes, np.array(changes.gone, np.int64))
        raise StorageError("the collection changes faster than it can be read")

    def _opened(self, key: Key) -> tuple[Collection, bool]:
        """And whether it has all rows: those that it lacks have been deleted since, so that a newer version is to be made."""
        inventory, name = self._store.inventory(*key), index_name(*key)
        version = inventory.state.version
        index = self._source.opened(name, version)
        if index is not None and not self._is_of(key, index, inventory):
            log.warning("a kept index is of another database, or of a state of this one that was given up: it is made anew")
            index = None
        if index is None:
            index = self._source.made(name, version, lambda: _slices(self._vectors(key, inventory.numbers)))
        return self._matched(key, index, inventory)

    def _matched(self, key: Key, index: ChunkIndex, inventory: Inventory) -> tuple[Collection, bool]:
        """The index without the rows that are not in the inventory, and with those that it lacks."""
        version, rows = inventory.state.version, index.rows
        missing = np.setdiff1d(inventory.numbers, rows, assume_unique=True)
        surplus = np.setdiff1d(rows, inventory.numbers, assume_unique=True)
        seen = _Seen(self._vectors(key, missing))
        if len(missing) or len(surplus) or index.version != version:
            index = index.changed(version, seen.slices(), surplus)
        members = Members.of(inventory.numbers, inventory.revisions, inventory.documents)
        return Collection(inventory.state.store, index, members), seen.count == len(missing)

    def _is_of(self, key: Key, index: ChunkIndex, inventory: Inventory) -> bool:
        """Whether rows in the index have the vectors that they have in SQL: once a backup was brought back, numbers are given again."""
        if index.version > inventory.state.version:
            return False
        common = np.intersect1d(index.rows, inventory.numbers, assume_unique=True)
        some = np.unique(np.linspace(0, len(common) - 1, COMPARED).astype(np.int64)) if len(common) else NONE
        found = self._store.vectors_of(*key, common[some].tolist())
        hits = [
            index.search(vector, 1, index.select(np.array([row])))
            for row, vector in zip(found.numbers.tolist(), found.vectors, strict=True)
        ]
        return all(hit and hit[0].score >= EQUAL for hit in hits)

    def _changed(self, key: Key, collection: Collection, changes: Changes, ended: Numbers) -> tuple[Collection, bool]:
        members = collection.members
        new = [document for document in changes.documents if members.lacks(document)]
        gone = members.rows_of(ended)
        seen = _Seen(self._chunks(key, new))
        index = collection.index.changed(changes.version, seen.slices(), gone)
        changed = members.changed(gone, seen.rows, seen.revisions, changes.documents, ended)
        return Collection(collection.number, index, changed), seen.count == sum(document.chunks for document in new)

    def _vectors(self, key: Key, rows: RowIds) -> Iterator[ChunkVectors]:
        for start in range(0, len(rows), SLICE):
            yield self._store.vectors_of(*key, rows[start : start + SLICE].tolist())

    def _chunks(self, key: Key, documents: Iterable[SeenDocument]) -> Iterator[ChunkVectors]:
        """Of all these documents: short ones together, long ones in parts."""
        together: list[int] = []
        count = 0
        for document in documents:
            if document.chunks > SLICE:
                for first in range(0, document.chunks, SLICE):
                    yield self._store.slice_of(*key, document.revision, first, SLICE)
                continue
            together.append(document.revision)
            count += document.chunks
            if count > SLICE:
                yield self._store.revisions_of(*key, together)
                together, count = [], 0
        if together:
            yield self._store.revisions_of(*key, together)


class _Seen:
    """Slices from SQL on their way into an index, and what they were."""

    def __init__(self, found: Iterator[ChunkVectors]) -> None:
        self._found = found
        self._numbers: list[Numbers] = []
        self._revisions: list[Numbers] = []

    @property
    def count(self) -> int:
        return sum(len(each) for each in self._numbers)

    @property
    def rows(self) -> RowIds:
        return np.concatenate([NONE, *self._numbers])

    @property
    def revisions(self) -> Numbers:
        return np.concatenate([NONE, *self._revisions])

    def slices(self) -> Slices:
        return _slices(self._noted())

    def _noted(self) -> Iterator[ChunkVectors]:
        for part in self._found:
            self._numbers.append(part.numbers)
            self._revisions.append(part.revisions)
            yield part


def _slices(found: Iterable[ChunkVectors]) -> Slices:
    """But for empty ones: of nothing SQL does not know the dimension."""
    return ((part.numbers, part.vectors) for part in found if len(part.numbers))
