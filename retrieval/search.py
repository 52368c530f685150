"""Finds the chunks that are nearest to a query: one flat FAISS index for each collection, built from SQL when it is first searched."""

import threading
from collections import OrderedDict
from collections.abc import Callable

import faiss
import numpy as np

from cache.entry import Vector
from retrieval.documents import Attributes, SearchHit
from retrieval.errors import StorageError, UnknownStoreError
from retrieval.store import DocumentStore, Snapshot

BUILD_LOCKS = 16
WIDER = 8
"""How many times as many chunks are looked at when too few of the last ones were acceptable."""

Where = Callable[[Attributes], bool]


class Collection:
    """One version of a collection, with the texts that go with its vectors. Never changes, so a reader cannot see a mixture."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.version = snapshot.version
        self._chunks = snapshot.chunks
        self._index = faiss.IndexFlatIP(snapshot.vectors.shape[1])
        self._index.add(snapshot.vectors)

    def search(self, vector: Vector, top_k: int, where: Where | None = None) -> list[SearchHit]:
        """Only chunks whose attributes `where` accepts: it is looked further until there are enough of them, or no more."""
        if where is None or not self._chunks:
            return self._nearest(vector, min(top_k, len(self._chunks)))
        wide = top_k
        while True:
            wide = min(WIDER * wide, len(self._chunks))
            hits = [hit for hit in self._nearest(vector, wide) if where(hit.chunk.attributes)]
            if len(hits) >= top_k or wide == len(self._chunks):
                return hits[:top_k]

    def _nearest(self, vector: Vector, k: int) -> list[SearchHit]:
        if k == 0:
            return []
        if vector.shape != (self._index.d,):
            raise StorageError(f"the collection's vectors have {self._index.d} dimensions, the query's {vector.shape}")
        # One query gains nothing from more threads, and on busy cores waits for them. OpenMP keeps the number for each calling thread.
        faiss.omp_set_num_threads(1)
        scores, places = self._index.search(np.ascontiguousarray(vector[None], dtype=np.float32), k)
        found = zip(np.clip(scores[0], -1, 1).tolist(), places[0].tolist(), strict=True)
        hits = [SearchHit(self._chunks[place], score) for score, place in found]
        return sorted(hits, key=lambda hit: (-hit.score, hit.chunk.id))


class VectorSearch:
    """Searches collections of a store; keeps the index of at most `max_loaded`, dropping the least recently searched. Thread-safe."""

    def __init__(self, store: DocumentStore, max_loaded: int) -> None:
        self._store = store
        self._max_loaded = max_loaded
        self._loaded: OrderedDict[tuple[str, str], Collection] = OrderedDict()
        self._lock = threading.Lock()
        self._build_locks = [threading.Lock() for _ in range(BUILD_LOCKS)]

    def search(self, namespace: str, store_id: str, vector: Vector, top_k: int, where: Where | None = None) -> tuple[list[SearchHit], int]:
        """At most `top_k` hits of a unit vector, best first, ties by chunk id, and the version that all of them are of.

        `where` says of a chunk's attributes whether it may be one of them.
        That version is the newest one at the time of the call, or newer. Raises `UnknownStoreError`, `StorageError`.
        """
        collection = self._collection((namespace, store_id))
        return collection.search(vector, top_k, where), collection.version

    def __len__(self) -> int:
        """How many collections are loaded."""
        return len(self._loaded)

    def _collection(self, key: tuple[str, str]) -> Collection:
        try:
            version = self._store.version(*key)
            return self._get(key, version) or self._build(key, version)
        except UnknownStoreError:
            with self._lock:
                self._loaded.pop(key, None)
            raise

    def _get(self, key: tuple[str, str], version: int) -> Collection | None:
        with self._lock:
            collection = self._loaded.get(key)
            if collection is None or collection.version < version:
                return None
            self._loaded.move_to_end(key)
            return collection

    def _build(self, key: tuple[str, str], version: int) -> Collection:
        """One thread builds; the others that want the same collection wait for it."""
        with self._build_locks[hash(key) % BUILD_LOCKS]:
            collection = self._get(key, version)
            if collection is None:
                collection = Collection(self._store.load(*key))
                self._keep(key, collection)
        return collection

    def _keep(self, key: tuple[str, str], collection: Collection) -> None:
        with self._lock:
            self._loaded[key] = collection
            self._loaded.move_to_end(key)
            while len(self._loaded) > self._max_loaded:
                self._loaded.popitem(last=False)
