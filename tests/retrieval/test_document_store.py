import sqlite3
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.entry import Vectors
from retrieval.documents import Chunk, Document, Page, VectorStoreInfo
from retrieval.errors import DocumentError, StorageError, UnknownStoreError
from retrieval.store import DocumentStore
from tests.retrieval.searching import contents

VECTORS: Vectors = np.eye(3, dtype=np.float32)
USAGE = len("café".encode()) + 2 * len("café 0".encode()) + 2 * 3 * 4
"""Of the text, its two chunks, and their vectors."""


def put(store: DocumentStore, document: Document, vectors: Vectors, namespace: str = "a", store_id: str = "vs_1") -> int:
    chunks = [Chunk(document.id, i, f"{document.text} {i}", document.attributes) for i in range(len(vectors))]
    return store.put_documents(namespace, store_id, [document], chunks, vectors, now=2.0)


def sweep_all(store: DocumentStore, now: float) -> None:
    while store.sweep(now):
        pass


def count_rows(url: str, table: str) -> int:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    connection.close()
    return int(count)


@pytest.fixture
def filled(store: DocumentStore) -> DocumentStore:
    store.create_store("a", "vs_1", "First", {"k": "v"}, now=1.0)
    put(store, Document("doc_1", "café", {"n": 1.5, "flag": True}), VECTORS[:2])
    return store


def test_reopened_store_holds_everything(filled: DocumentStore, url: str) -> None:
    before = contents(filled, "a", "vs_1")
    filled.close()
    reopened = DocumentStore(url, "hashed-words@1")
    assert reopened.get_store("a", "vs_1") == VectorStoreInfo("vs_1", "First", 1.0, 1, 2, 1, {"k": "v"}, {"completed": 1}, USAGE)
    assert reopened.get_document("a", "vs_1", "doc_1") == Document("doc_1", "café", {"n": 1.5, "flag": True})
    (info,) = reopened.list_documents("a", "vs_1", Page())
    assert (info.created_at, info.bytes, info.chunks) == (2.0, 5, 2)
    after = contents(reopened, "a", "vs_1")
    assert (after.version, after.chunks) == (before.version, before.chunks)
    np.testing.assert_array_equal(after.vectors, VECTORS[:2])
    reopened.close()


def test_replacing_leaves_nothing_of_the_old_document(filled: DocumentStore) -> None:
    assert put(filled, Document("doc_1", "new"), VECTORS[2:]) == 2
    snapshot = contents(filled, "a", "vs_1")
    assert [chunk.text for chunk in snapshot.chunks] == ["new 0"]
    np.testing.assert_array_equal(snapshot.vectors, VECTORS[2:])
    assert filled.get_document("a", "vs_1", "doc_1") == Document("doc_1", "new")


def test_failed_change_changes_nothing(filled: DocumentStore) -> None:
    before = contents(filled, "a", "vs_1")
    twice = [Document("doc_1", "new"), Document("doc_1", "newer")]
    with pytest.raises(StorageError) as failed:
        filled.put_documents("a", "vs_1", twice, [Chunk("doc_1", 0, "new")], VECTORS[:1], now=3.0)
    assert "newer" not in str(failed.value)
    after = contents(filled, "a", "vs_1")
    assert (after.version, after.chunks) == (before.version, before.chunks)
    assert filled.get_document("a", "vs_1", "doc_1") == Document("doc_1", "café", {"n": 1.5, "flag": True})


def test_deleting_a_document_raises_the_version_once(filled: DocumentStore) -> None:
    assert filled.delete_document("a", "vs_1", "doc_1", now=3.0)
    assert not filled.delete_document("a", "vs_1", "doc_1", now=4.0)
    assert filled.get_store("a", "vs_1") == VectorStoreInfo("vs_1", "First", 1.0, 0, 0, 2, {"k": "v"})
    assert contents(filled, "a", "vs_1").chunks == []


def test_deleted_collection_is_unknown_and_leaves_no_rows(filled: DocumentStore, url: str) -> None:
    filled.create_store("a", "vs_2", "Second", {}, now=1.0)
    put(filled, Document("doc_1", "kept"), VECTORS[:1], store_id="vs_2")
    filled.delete_store("a", "vs_1")
    with pytest.raises(UnknownStoreError):
        filled.delete_store("a", "vs_1")
    sweep_all(filled, now=1e9)
    tables = ("retrieval_stores", "retrieval_documents", "retrieval_revisions", "retrieval_chunks")
    assert [count_rows(url, table) for table in tables] == [1] * 4


def test_lists_are_pages_in_the_order_of_ids(store: DocumentStore) -> None:
    for number in (3, 1, 2):
        store.create_store("a", f"vs_{number}", "", {}, now=1.0)
        put(store, Document(f"doc_{number}", "text"), VECTORS[:1], store_id="vs_3") if number == 3 else None
    put(store, Document("doc_1", "text"), VECTORS[:1], store_id="vs_3")
    store.create_store("b", "vs_0", "", {}, now=1.0)

    def stores(*namespaces: str, **page: Any) -> list[str]:
        return [info.id for _, info in store.list_stores(namespaces, Page(**page))]

    assert stores("a", limit=2) == ["vs_1", "vs_2"]
    assert stores("a", limit=2, after="vs_2") == ["vs_3"]
    assert stores("a", limit=2, newest_first=True) == ["vs_3", "vs_2"]
    assert stores("a", after="vs_3", newest_first=True) == ["vs_2", "vs_1"]
    assert stores("a", before="vs_2") == ["vs_1"]
    assert stores("a", before="vs_2", newest_first=True) == ["vs_3"]
    assert stores("a", "b", limit=2) == ["vs_0", "vs_1"]
    assert [info.id for info in store.list_documents("a", "vs_3", Page(limit=1))] == ["doc_1"]
    assert [info.id for info in store.list_documents("a", "vs_3", Page(limit=1, after="doc_1"))] == ["doc_3"]


def test_vectors_of_another_encoder_are_not_used(filled: DocumentStore, url: str) -> None:
    other = DocumentStore(url, "another@1")
    assert (other.others(), filled.others()) == ({filled.embedder: 1}, {})
    with pytest.raises(DocumentError, match="made with another encoder"):
        contents(other, "a", "vs_1")
    with pytest.raises(DocumentError, match="add its documents to a new one"):
        put(other, Document("doc_2", "text"), VECTORS[:1])
    other.delete_store("a", "vs_1")
    other.close()


def test_file_is_its_owners_only(store: DocumentStore, url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("url", ["sqlite://", "not a url", "nosuch://host/db", "sqlite:////proc/no/such/file"])
def test_database_that_cannot_be_opened_is_a_storage_error(url: str) -> None:
    with pytest.raises(StorageError):
        DocumentStore(url, "hashed-words@1")


def test_broken_database_is_a_storage_error(filled: DocumentStore, url: str) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("DROP TABLE retrieval_chunks")
    connection.close()
    with pytest.raises(StorageError, match="no such table"):
        contents(filled, "a", "vs_1")
