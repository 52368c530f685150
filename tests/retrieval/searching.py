"""Collections whose indexes are saved, grow structures and are made anew with some dozens of rows."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cache.entry import Vector, Vectors
from retrieval import sources
from retrieval.collection import Collection
from retrieval.documents import Chunk, Document
from retrieval.filters import Filter
from retrieval.indexes import building, faiss_index, structures
from retrieval.indexes.base import ChunkIndex, Found, Kind
from retrieval.indexes.config import IndexConfig
from retrieval.search import CollectionCache
from retrieval.sources import FaissSource, index_name
from retrieval.store import DocumentStore
from tests.retrieval.tiers import QuickEncoder

KINDS: list[Kind] = ["auto", "flat", "hnsw", "ivf"]
DIMENSION = 8
ENCODER = QuickEncoder()
QUERY = ENCODER.embed(["what?"])[0]


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is for many rows happens with dozens."""
    monkeypatch.setattr(structures, "FEW", 10)
    for module in (building, faiss_index, sources):
        monkeypatch.setattr(module, "FLAT_ROWS", 64)
    monkeypatch.setattr(faiss_index, "MIN_TAIL", 8)


def collections(url: str, *names: str) -> Iterator[DocumentStore]:
    """A store with empty ones, to be closed by its end."""
    store = DocumentStore(url, ENCODER.name)
    for name in names:
        store.create_store("a", name, "", {}, 1.0)
    yield store
    store.close()


def source_of(directory: Path | None, kind: Kind = "auto", embedder: str = ENCODER.name) -> FaissSource:
    return FaissSource(IndexConfig(kind=kind), DIMENSION, embedder, directory, min_saved=20)


class SlowSource(FaissSource):
    """Making an index, or tending it, waits until a test lets it."""

    def __init__(self, directory: Path | None) -> None:
        made = source_of(directory)
        self.__dict__ |= made.__dict__
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.slow_name = ""

    def made(self, name: str, version: int, slices: Any) -> ChunkIndex:
        self._wait(name)
        return super().made(name, version, slices)

    def tended(self, name: str, index: ChunkIndex, is_stopping: Any) -> ChunkIndex:
        self._wait(name)
        return super().tended(name, index, is_stopping)

    def _wait(self, name: str) -> None:
        if name == self.slow_name:
            self.begun.set()
            assert self.may_end.wait(20)


def search_of(store: DocumentStore, directory: Path | None, kind: Kind = "auto") -> CollectionCache:
    return CollectionCache(store, source_of(directory, kind), max_loaded=2)


def tend(search: CollectionCache) -> None:
    """All upkeep there is."""
    while search.tend():
        pass


def texts(count: int, first: int = 0) -> dict[str, str]:
    return {f"d{number}": f"text {number}" for number in range(first, first + count)}


def put(store: DocumentStore, texts: dict[str, str], store_id: str = "vs_1", chunks: int = 1, **attributes: str) -> None:
    """Documents by id, each of so many chunks."""
    documents = [Document(name, text, attributes) for name, text in texts.items()]
    parts = [Chunk(each.id, at, f"{each.text} {at}") for each in documents for at in range(chunks)]
    store.put_documents("a", store_id, documents, parts, ENCODER.embed([part.text for part in parts]), 1.0)


def texts_of(store: DocumentStore, found: list[Found], store_id: str = "vs_1") -> list[str]:
    chunks = store.chunks_of("a", store_id, [each.row for each in found])
    return [chunks[each.row].text for each in found]


@dataclass(frozen=True, slots=True)
class Contents:
    """All chunks of a collection that a search may find, ordered by document id and ordinal. `vectors`: shape (chunks, dimension)."""

    version: int
    chunks: list[Chunk]
    vectors: Vectors


def contents(store: DocumentStore, namespace: str, store_id: str) -> Contents:
    inventory = store.inventory(namespace, store_id)
    found = store.vectors_of(namespace, store_id, inventory.numbers.tolist())
    texts = store.chunks_of(namespace, store_id, found.numbers.tolist())
    chunks = [texts[number] for number in found.numbers.tolist()]
    order = sorted(range(len(chunks)), key=lambda at: (chunks[at].document_id, chunks[at].ordinal))
    return Contents(inventory.state.version, [chunks[at] for at in order], found.vectors[order])


def agrees(store: DocumentStore, collection: Collection, store_id: str = "vs_1") -> bool:
    """Whether a search finds all that SQL has, and nothing else, in the order of comparing all."""
    snapshot = contents(store, "a", store_id)
    scores = (snapshot.vectors @ QUERY).tolist() if snapshot.chunks else []
    expected = sorted(zip(scores, (chunk.text for chunk in snapshot.chunks), strict=True), reverse=True)
    found = collection.search(QUERY, 1000)
    same = texts_of(store, found, store_id) == [text for _, text in expected]
    return same and collection.version == snapshot.version


def slow_stages(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Searches have a first stage, which finds the first of two rows, and end when the event is set."""
    may_end = threading.Event()

    def stages(self: Collection, vector: Vector, k: int, filters: Filter | None = None) -> Iterator[list[Found]]:
        found = self.index.search(vector, k)
        yield found[:1]
        may_end.wait(20)
        yield found

    monkeypatch.setattr(Collection, "stages", stages)
    return may_end


def directory_of(indexes: Path, store_id: str = "vs_1") -> Path:
    return indexes / index_name("a", store_id)
