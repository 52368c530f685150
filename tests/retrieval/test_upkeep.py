"""What is done to an index in the background: its structure, while the collection is searched, changed and deleted."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from retrieval.errors import IndexFileError
from retrieval.indexes import faiss_index, structures
from retrieval.indexes.base import Kind
from retrieval.indexes.faiss_index import FaissChunkIndex
from retrieval.search import CollectionCache
from retrieval.sources import RETRY_S, index_name
from retrieval.store import DocumentStore
from tests.retrieval.searching import KINDS, SlowSource, agrees, collections, directory_of, put, search_of, source_of, tend, texts

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def store(url: str) -> Iterator[DocumentStore]:
    yield from collections(url, "vs_1")


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_gets_its_structure_in_the_background(store: DocumentStore, indexes: Path, kind: Kind) -> None:
    search = search_of(store, indexes, kind)
    put(store, texts(100))
    first = search.open("a", "vs_1")
    assert (first.index.kind, agrees(store, first)) == ("flat", True)
    tend(search)
    second = search.open("a", "vs_1")
    assert (second.index.kind, agrees(store, second)) == ({"auto": "ivf"}.get(kind, kind), True)
    assert not search.tend()


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_many_new_rows_are_put_into_the_structure_in_the_background(
    store: DocumentStore, indexes: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_index, "MOST_GROWN", 10)
    search = search_of(store, indexes, kind)
    put(store, texts(100))
    search.open("a", "vs_1")
    tend(search)
    put(store, texts(30, 100))
    before = search.open("a", "vs_1").index
    assert isinstance(before, FaissChunkIndex)
    assert before.tail_is_long
    assert agrees(store, search.open("a", "vs_1"))
    tend(search)
    after = search.open("a", "vs_1").index
    assert isinstance(after, FaissChunkIndex)
    assert not after.tail_is_long
    assert agrees(store, search.open("a", "vs_1"))


@pytest.mark.parametrize("error", [IndexFileError, RuntimeError, MemoryError])
def test_what_fails_in_the_background_is_done_again_after_a_pause(
    store: DocumentStore, indexes: Path, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, tries = [0.0], list[float]()
    source = source_of(indexes)
    source._clock = lambda: now[0]

    def fails(*_: Any) -> Any:
        tries.append(now[0])
        raise error

    monkeypatch.setattr(structures.Ivf, "of", fails)
    search = CollectionCache(store, source, 2)
    put(store, texts(100))
    for now[0] in (0.0, 1.0, RETRY_S - 1, RETRY_S, RETRY_S + 1):
        assert agrees(store, search.open("a", "vs_1"))
        tend(search)
    assert tries == [0.0, RETRY_S]


def test_while_a_structure_is_made_the_collection_changes_and_is_searched(store: DocumentStore, indexes: Path) -> None:
    put(store, texts(100))
    source = SlowSource(indexes)
    search = CollectionCache(store, source, 2)
    search.open("a", "vs_1")
    source.slow_name = index_name("a", "vs_1")
    with ThreadPoolExecutor(1) as threads:
        tending = threads.submit(tend, search)
        try:
            assert source.begun.wait(20)
            put(store, texts(20, 90))
            store.delete_document("a", "vs_1", "d5", 2.0)
            between = search.open("a", "vs_1")
            assert (between.index.kind, agrees(store, between)) == ("flat", True)
            source.slow_name = ""
        finally:
            source.may_end.set()
        tending.result()
    after = search.open("a", "vs_1")
    assert (after.index.kind, agrees(store, after)) == ("ivf", True)


def test_a_collection_that_is_deleted_while_its_structure_is_made_leaves_nothing(store: DocumentStore, indexes: Path) -> None:
    put(store, texts(100))
    source = SlowSource(indexes)
    search = CollectionCache(store, source, 2)
    search.open("a", "vs_1")
    source.slow_name = index_name("a", "vs_1")
    with ThreadPoolExecutor(1) as threads:
        tending = threads.submit(tend, search)
        try:
            assert source.begun.wait(20)
            store.delete_store("a", "vs_1")
            search.forget("a", "vs_1")
        finally:
            source.may_end.set()
        tending.result()
    assert not directory_of(indexes).exists()


def test_upkeep_has_a_thread_which_ends_with_the_process(store: DocumentStore, indexes: Path) -> None:
    put(store, texts(100))
    search = search_of(store, indexes)
    search.start()
    limit = time.monotonic() + 20
    while search.open("a", "vs_1").index.kind != "ivf":
        assert time.monotonic() < limit
        time.sleep(0.01)
    search.close()
    search.close()
    assert search._upkeep._thread is not None
    assert not search._upkeep._thread.is_alive()


def test_a_structure_that_is_being_made_is_given_up_when_the_process_ends(store: DocumentStore, indexes: Path) -> None:
    search = search_of(store, indexes)
    put(store, texts(100))
    search.open("a", "vs_1")
    search.close()
    tend(search)
    assert search.open("a", "vs_1").index.kind == "flat"
    assert [path.name[:5] for path in directory_of(indexes).iterdir()] == ["00000"]  # no draft
