"""The texts of what a search has found: from SQL, or from the memory of those that were found lately."""

import sys
import threading
from collections.abc import Sequence
from dataclasses import replace

from cachetools import LRUCache

from retrieval.collection import Collection
from retrieval.documents import Chunk
from retrieval.store import DocumentStore

OVERHEAD_BYTES = 700
"""What a chunk takes in memory besides its text."""


class Texts:
    """Thread-safe."""

    def __init__(self, store: DocumentStore, max_bytes: int) -> None:
        self._store = store
        self._known: LRUCache[int, Chunk] = LRUCache(max_bytes, _size)
        self._lock = threading.Lock()

    def of(self, namespace: str, store_id: str, collection: Collection, rows: Sequence[int]) -> dict[int, Chunk]:
        """The chunks of these rows, as they are in this version. Those that ended a while ago, and have been deleted, are missing.

        Raises `UnknownStoreError`, `StorageError`.
        """
        with self._lock:
            found = {row: chunk for row in rows if (chunk := self._known.get(row)) is not None}
        if missing := [row for row in rows if row not in found]:
            read = self._store.chunks_of(namespace, store_id, missing)
            with self._lock:
                for row, chunk in read.items():
                    if _size(chunk) <= self._known.maxsize:
                        self._known[row] = replace(chunk, attributes={})
            found |= read
        # A row's text never changes; what its document says of itself may.
        return {row: replace(chunk, attributes=collection.members.attributes_of(row)) for row, chunk in found.items()}


def _size(chunk: Chunk) -> int:
    return OVERHEAD_BYTES + sys.getsizeof(chunk.text)
