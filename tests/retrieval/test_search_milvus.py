"""Collections whose index is in Milvus."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrieval.filters import parse_filter
from retrieval.indexes import milvus
from retrieval.indexes.config import IndexConfig
from retrieval.indexes.milvus import MilvusChunks
from retrieval.search import CollectionCache
from retrieval.sources import FaissSource, MilvusSource, index_name, open_source
from retrieval.store import DocumentStore
from tests.cache.databases import milvus_url
from tests.retrieval.milvus_rows import MemoryConnection
from tests.retrieval.searching import DIMENSION, QUERY, agrees, put, tend, texts
from tests.retrieval.tiers import QuickEncoder


@pytest.fixture(scope="module", params=["server", "row", "id"])
def chunks(request: pytest.FixtureRequest) -> Iterator[MilvusChunks]:
    """In a server, and in memory."""
    if request.param == "server":
        made = MilvusChunks.at(milvus_url().replace("milvus:", "http:"), f"test_{uuid.uuid4().hex}", DIMENSION)
    else:
        made = MilvusChunks(MemoryConnection(request.param), DIMENSION)
    yield made
    made.drop()
    made.close()


@pytest.fixture
def store(url: str) -> Any:
    store = DocumentStore(url, QuickEncoder().name)
    store.create_store("a", "vs_1", "", {}, 1.0)
    yield store
    store.close()


def test_versions_follow_each_other_also_in_another_process(store: DocumentStore, chunks: MilvusChunks) -> None:
    search = CollectionCache(store, MilvusSource(chunks), 2)
    put(store, {f"d{number}": f"text {number}" for number in range(50)}, kind="x")
    assert agrees(store, search.open("a", "vs_1"))
    put(store, {"d3": "otherwise", "new": "new"}, chunks=3)
    store.delete_document("a", "vs_1", "d7", 2.0)
    assert agrees(store, search.open("a", "vs_1"))
    store.delete_document("a", "vs_1", "d8", 2.0)
    put(store, {"newer": "newer"}, chunks=2)
    again = CollectionCache(store, MilvusSource(chunks), 2)
    collection = again.open("a", "vs_1")
    assert (collection.index.kind, agrees(store, collection)) == ("milvus", True)
    where = parse_filter({"type": "eq", "key": "kind", "value": "x"}, "filters")
    assert len(collection.search(QUERY, 100, where)) == 47
    store.delete_store("a", "vs_1")
    again.forget("a", "vs_1")
    tend(again)
    assert len(chunks.version(index_name("a", "vs_1"), 2**53)) == 0


def test_rows_of_a_state_that_was_given_up_do_not_come_back(store: DocumentStore, chunks: MilvusChunks, url: str) -> None:
    """A backup is brought back, and the version that those rows were born at is reached again."""
    put(store, texts(20))
    CollectionCache(store, MilvusSource(chunks), 2).open("a", "vs_1")
    path = Path(url.removeprefix("sqlite:///"))
    store.close()
    backup = path.read_bytes()
    store = DocumentStore(url, QuickEncoder().name)
    put(store, {f"lost{number}": f"lost {number}" for number in range(30)})
    assert agrees(store, CollectionCache(store, MilvusSource(chunks), 2).open("a", "vs_1"))
    store.close()
    path.write_bytes(backup)
    store = DocumentStore(url, QuickEncoder().name)
    search = CollectionCache(store, MilvusSource(chunks), 2)
    assert agrees(store, search.open("a", "vs_1"))
    for name in ("kept", "kept too"):
        put(store, {f"{name[-3:]}{number}": f"{name} {number}" for number in range(5)})
        assert agrees(store, search.open("a", "vs_1"))
    store.close()


def test_a_filter_that_is_too_wide_to_be_sent_is_looked_behind(
    store: DocumentStore, chunks: MilvusChunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus, "MAX_SELECTED", 10)
    put(store, {f"x{number}": f"text {number}" for number in range(20)}, kind="x")
    put(store, {f"y{number}": f"other {number}" for number in range(40)}, kind="y")
    collection = CollectionCache(store, MilvusSource(chunks), 2).open("a", "vs_1")
    where = parse_filter({"type": "eq", "key": "kind", "value": "x"}, "filters")
    every = [hit for hit in collection.search(QUERY, 60) if collection.members.attributes_of(hit.row)["kind"] == "x"]
    for k in (1, 3, 20, 50):
        assert collection.search(QUERY, k, where) == every[:k]


def test_databases_have_collections_of_their_own(tmp_path: Path) -> None:
    config, encoder = IndexConfig.model_validate({"url": "milvus://127.0.0.1:1"}), QuickEncoder()
    names = []
    for directory in ("one", "two", "one"):
        source = open_source(config, tmp_path / directory, encoder)
        assert isinstance(source, MilvusSource)
        names.append(source._chunks.connection._collection)
        source.close()
    assert names[0] == names[2] != names[1]
    assert isinstance(open_source(IndexConfig(), tmp_path, encoder), FaissSource)
