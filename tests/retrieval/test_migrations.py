"""Files of the first release, which had no migrations, go on working; and the schema is what the migrations make."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from retrieval.documents import Chunk, Document, Page
from retrieval.migrate import open_database
from retrieval.schema import VERSION_TABLE, metadata
from retrieval.store import DocumentStore
from tests.retrieval.searching import contents

FIRST_RELEASE = """
CREATE TABLE vector_stores (namespace VARCHAR(64) NOT NULL, id VARCHAR(64) NOT NULL, name VARCHAR(255) NOT NULL,
    embedder VARCHAR(255) NOT NULL, created_at DOUBLE NOT NULL, version INTEGER NOT NULL, details JSON NOT NULL,
    PRIMARY KEY (namespace, id));
CREATE TABLE vector_store_documents (namespace VARCHAR(64) NOT NULL, store_id VARCHAR(64) NOT NULL, id VARCHAR(64) NOT NULL,
    created_at DOUBLE NOT NULL, bytes INTEGER NOT NULL, chunks INTEGER NOT NULL, attributes JSON NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (namespace, store_id, id));
CREATE TABLE vector_store_chunks (namespace VARCHAR(64) NOT NULL, store_id VARCHAR(64) NOT NULL, document_id VARCHAR(64) NOT NULL,
    ordinal INTEGER NOT NULL, text TEXT NOT NULL, embedding BLOB NOT NULL, PRIMARY KEY (namespace, store_id, document_id, ordinal));
"""


def first_release(path: Path) -> None:
    """Two namespaces with equal ids, and a collection without documents."""
    connection = sqlite3.connect(path)
    connection.executescript(FIRST_RELEASE)
    for namespace in "ab":
        for store in ("vs_1", "vs_2"):
            row: tuple[Any, ...] = (namespace, store, f"{namespace} {store}", "e", 1.0, 7, '{"k": "v"}')
            connection.execute("INSERT INTO vector_stores VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        for document in ("doc_1", "doc_2"):
            row = (namespace, "vs_1", document, 2.0, 4, 2, json.dumps({"n": 1.5}), f"{namespace} {document}")
            connection.execute("INSERT INTO vector_store_documents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            for ordinal in (0, 1):
                row = (namespace, "vs_1", document, ordinal, f"{namespace} {document} {ordinal}", np.eye(2, dtype="<f4")[ordinal].tobytes())
                connection.execute("INSERT INTO vector_store_chunks VALUES (?, ?, ?, ?, ?, ?)", row)
    connection.commit()
    connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    first_release(tmp_path / "documents.db")
    return tmp_path / "documents.db"


def test_a_file_of_the_first_release_goes_on(path: Path) -> None:
    store = DocumentStore(f"sqlite:///{path}", "e")
    for namespace in "ab":
        info = store.get_store(namespace, "vs_1")
        assert (info.name, info.documents, info.chunks, info.version) == (f"{namespace} vs_1", 2, 4, 7)
        snapshot = contents(store, namespace, "vs_1")
        ids = [(document, ordinal) for document in ("doc_1", "doc_2") for ordinal in (0, 1)]
        assert snapshot.chunks == [Chunk(d, o, f"{namespace} {d} {o}", {"n": 1.5}, d) for d, o in ids]
        np.testing.assert_array_equal(snapshot.vectors, np.tile(np.eye(2, dtype=np.float32), (2, 1)))
        assert store.get_document(namespace, "vs_1", "doc_2") == Document("doc_2", f"{namespace} doc_2", {"n": 1.5})
        assert contents(store, namespace, "vs_2").chunks == []
    new = Document("doc_1", "new")
    assert store.put_documents("a", "vs_1", [new], [Chunk("doc_1", 0, "new")], np.eye(1, 2, dtype=np.float32), 3.0) == 8
    assert [info.id for info in store.list_documents("a", "vs_1", Page())] == ["doc_1", "doc_2"]
    assert store.changes("a", "vs_1", 3).gone is None
    store.close()


def test_a_migration_that_was_stopped_before_the_old_tables_were_gone_is_made_again(path: Path) -> None:
    """As on MySQL, which commits after each statement."""
    database = open_database(f"sqlite:///{path}")
    database.close()
    connection = sqlite3.connect(path)
    connection.executescript(FIRST_RELEASE)
    connection.execute("INSERT INTO vector_stores VALUES ('c', 'vs_9', '', 'e', 1.0, 0, '{}')")
    connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")  # noqa: S608
    connection.commit()
    connection.close()
    store = DocumentStore(f"sqlite:///{path}", "e")
    assert [info.id for _, info in store.list_stores(["a", "b", "c"], Page())] == ["vs_9"]
    store.close()


def test_the_migrations_make_the_schema(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/new.db")
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE name LIKE 'vector_store%'").all()) == set()
    database.close()


def test_mysql_gets_types_that_hold_it() -> None:
    statements = {table.name: str(CreateTable(table).compile(dialect=mysql.dialect())) for table in metadata.sorted_tables}
    assert "text LONGTEXT" in statements["retrieval_chunks"]
    assert "seq BIGINT NOT NULL AUTO_INCREMENT" in statements["retrieval_chunks"]
    assert all("utf8mb4_bin" in statement for statement in statements.values())
