"""Many searches at once of collections that nobody has opened yet."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cache.errors import VectorIndexError
from retrieval import search as search_module
from retrieval.errors import BusyError
from retrieval.indexes.base import ChunkIndex
from retrieval.search import CollectionCache
from retrieval.sources import FaissSource, index_name
from retrieval.store import DocumentStore
from tests.retrieval.searching import SlowSource, agrees, collections, put, source_of, texts

NAMES = ("vs_1", "vs_2", "vs_3", "vs_4")


pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def store(url: str) -> Iterator[DocumentStore]:
    for store in collections(url, *NAMES):
        for name in NAMES:
            put(store, texts(100), name)
        yield store


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three searches may open collections; one of them may be one that waits."""
    monkeypatch.setattr(search_module, "MAX_OPENING", 3)
    monkeypatch.setattr(search_module, "MAX_WAITING", 1)
    monkeypatch.setattr(search_module, "OPENING_S", 0.01)


def test_while_an_index_is_made_others_are_opened_and_searched(store: DocumentStore, indexes: Path) -> None:
    source = SlowSource(indexes)
    search = CollectionCache(store, source, 9)
    search.open("a", "vs_2")
    source.slow_name = index_name("a", "vs_1")
    with ThreadPoolExecutor(6) as threads:
        opening = [threads.submit(search.open, "a", "vs_1") for _ in range(6)]
        try:
            until(lambda: sum(each.done() for each in opening) == 4)  # one opens, and one waits
            assert agrees(store, search.open("a", "vs_2"), "vs_2")
            assert agrees(store, search.open("a", "vs_3"), "vs_3")
        finally:
            source.may_end.set()
        refused = [each for each in opening if each.exception()]
        assert len(refused) == 4
        for each in refused:
            with pytest.raises(BusyError, match="being opened"):
                each.result()
        assert all(agrees(store, each.result()) for each in opening if each not in refused)
    assert agrees(store, search.open("a", "vs_4"), "vs_4")  # all permits are back


def test_so_many_collections_are_opened_at_once(store: DocumentStore, indexes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_end = list[str](), threading.Event()
    made = FaissSource.made

    def slow(source: FaissSource, name: str, *rest: Any) -> ChunkIndex:
        begun.append(name)
        assert may_end.wait(20)
        return made(source, name, *rest)

    monkeypatch.setattr(FaissSource, "made", slow)
    search = CollectionCache(store, source_of(indexes), 9)
    with ThreadPoolExecutor(3) as threads:
        opening = [threads.submit(search.open, "a", name) for name in NAMES[:3]]
        try:
            until(lambda: len(begun) == 3)
            with pytest.raises(BusyError, match="being opened"):
                search.open("a", "vs_4")
        finally:
            may_end.set()
        assert all(agrees(store, each.result(), name) for name, each in zip(NAMES, opening, strict=False))
    assert agrees(store, search.open("a", "vs_4"), "vs_4")


def test_who_waits_for_a_collection_that_cannot_be_opened_fails_too(
    store: DocumentStore, indexes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SlowSource(indexes)
    source.slow_name = index_name("a", "vs_1")
    search = CollectionCache(store, source, 2)
    with ThreadPoolExecutor(2) as threads, monkeypatch.context() as patch:
        tries = list[str]()

        def fails(self: FaissSource, name: str, *rest: Any) -> ChunkIndex:
            tries.append(name)
            raise VectorIndexError("no server")

        patch.setattr(FaissSource, "made", fails)
        opening = [threads.submit(search.open, "a", "vs_1") for _ in range(2)]
        try:
            until(lambda: not search._waiting._value)
        finally:
            source.may_end.set()
        for each in opening:
            with pytest.raises(VectorIndexError, match="no server"):
                each.result()
        assert len(tries) == 1
    assert agrees(store, search.open("a", "vs_1"))
