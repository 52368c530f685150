"""What a search costs through `RetrievalService`: SQLite and files on disk, a fake encoder, one caller after the other.

`benchmarks/vector_search.py --through service` runs it. Rows by `case`: `open` is a process's first search of the collection, from SQL
and from saved files; `new` are queries that nothing is remembered of, `first` until their provisional result is there (`begin_search`),
`filtered` with a filter that a tenth of the documents passes; `repeated` are texts that were asked before. `index_p50_ms` is the index's
part in `new`. `memory_mb` is anonymous memory beyond what the process had before; the index's structure, which is mapped, is `mapped_mb`.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Row, say
from benchmarks.vector_world import DIMENSION, TOP, World, anonymous, one_core
from cache.entry import Vectors
from retrieval.config import RetrievalConfig
from retrieval.documents import Chunk, Document, SearchRequest
from retrieval.indexes.faiss_index import FaissChunkIndex
from retrieval.scopes import Scopes
from retrieval.service import RetrievalService
from retrieval.sources import FaissSource
from retrieval.store import DocumentStore

CHUNKS, CHARS = 100, 800
"""Of a document, and of a chunk."""
KINDS = 10
NAMESPACE, STORE = "a", "vs_1"


class FakeEncoder:
    """Query number n has the n-th of the given vectors."""

    name, dimension, max_tokens = "fake", DIMENSION, 10_000

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self._vectors[int(text.split()[-1])] for text in texts])

    def covers(self, texts: Sequence[str]) -> list[bool]:
        return [True] * len(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) // 4 for text in texts]


def measured(world: World, options: argparse.Namespace) -> list[Row]:
    vectors = world.queries(3 * options.queries)
    with tempfile.TemporaryDirectory() as directory, ProcessPoolExecutor(1, get_context("spawn")) as another:
        # What another process has needed for that does not count as memory here.
        from_sql = another.submit(prepare, world, Path(directory), vectors, options.threads).result()
        before = anonymous()
        service = opened(Path(directory), vectors, options.threads)
        from_files = _seconds(lambda: _search(service, 0))
        with one_core():
            cases = _cases(service, options.queries)
        index = service._indexes.open(NAMESPACE, STORE).index
        memory = {"rows": world.rows, "memory_mb": (anonymous() - before) / 1e6}
        if isinstance(index, FaissChunkIndex):
            memory["mapped_mb"] = (index.bytes - index.contents.matrix.bytes) / 1e6
        service.close()
    opens = [{"case": "open", "from": place, "seconds": seconds} for place, seconds in (("sql", from_sql), ("files", from_files))]
    return [{"system": "ours", **row, **memory} for row in (*opens, *cases)]


def prepare(world: World, directory: Path, vectors: Vectors, threads: int) -> float:
    """Fills the database, and has the index saved with its structure. Returns the seconds of the first search."""
    fill(world, directory)
    service = opened(directory, vectors, threads)
    seconds = _seconds(lambda: _search(service, 0))
    while service._indexes.tend():
        say("made the structure")
    service.close()
    return seconds


def fill(world: World, directory: Path) -> None:
    store = DocumentStore(f"sqlite:///{directory}/documents.db", FakeEncoder.name)
    store.create_store(NAMESPACE, STORE, "", {}, 1.0)
    for numbers, vectors in world.slices():
        firsts = range(int(numbers[0]), int(numbers[-1]) + 1, CHUNKS)
        documents = [Document(f"d{first}", "text", {"kind": first // CHUNKS % KINDS}) for first in firsts]
        counts = [min(CHUNKS, int(numbers[-1]) + 1 - first) for first in firsts]
        pairs = [(document, at) for document, count in zip(documents, counts, strict=True) for at in range(count)]
        parts = [Chunk(document.id, at, f"{document.id} {at} ".ljust(CHARS, "x")) for document, at in pairs]
        store.put_documents(NAMESPACE, STORE, documents, parts, vectors, 1.0)
    store.close()


def opened(directory: Path, vectors: Vectors, threads: int) -> RetrievalService:
    """A service of a process that has just started."""
    # No other query is near enough to be taken for this one, so that what is measured is a search.
    config = RetrievalConfig.model_validate({"index": {"build_threads": threads}, "result_cache": {"tolerance": 0}})
    encoder = FakeEncoder(vectors)
    store = DocumentStore(f"sqlite:///{directory}/documents.db", encoder.name)
    source = FaissSource(config.index, DIMENSION, encoder.name, directory / "indexes")
    return RetrievalService(store, encoder, config, Scopes(store), source, lambda: 1.0)


def _cases(service: RetrievalService, count: int) -> list[Row]:
    new, first, filtered = (range(start, start + count) for start in (0, count, 2 * count))
    where = {"type": "eq", "key": "kind", "value": 3}
    collection = service._indexes.open(NAMESPACE, STORE)
    vectors = [service._embedder.embed([f"query {number}"])[0] for number in new]
    _search(service, 0, where)  # the filter is prepared
    index = _spread(lambda number: collection.search(vectors[number], TOP), new)
    tickets: list[str | None] = []

    def begin(number: int) -> None:
        tickets.append(service.begin_search(NAMESPACE, SearchRequest([STORE], [f"query {number}"], TOP)).ticket)

    cases: list[Row] = [
        {"case": "new", "kind": collection.index.kind, **_spread(lambda number: _search(service, number), new)},
        {"case": "repeated", **_spread(lambda number: _search(service, number), new)},
        {"case": "first", **_spread(begin, first, lambda: tickets[-1] and service.end_search(NAMESPACE, tickets[-1]))},
        {
            "case": "filtered",
            **_spread(lambda number: _search(service, number, where), filtered),
        },
    ]
    cases[0]["index_p50_ms"] = index["search_p50_ms"]
    return cases


def _search(service: RetrievalService, number: int, filters: dict[str, Any] | None = None) -> None:
    service.search(NAMESPACE, SearchRequest([STORE], [f"query {number}"], TOP, filters))


def _spread(work: Callable[[int], object], numbers: Iterable[int], after: Callable[[], object] = lambda: None) -> Row:
    """`after` each, what does not count."""
    seconds = []
    for number in numbers:
        began = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - began)
        after()
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1e3
    return {"search_p50_ms": float(p50), "search_p99_ms": float(p99)}


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
