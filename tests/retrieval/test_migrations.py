"""Databases of the first release, which had no migrations, go on working; and the schema is what the migrations make."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from cache.database import Database
from retrieval.documents import Chunk, Document, Page
from retrieval.errors import StorageError
from retrieval.migrate import open_database
from retrieval.schema import VERSION_TABLE, metadata
from retrieval.store import DocumentStore
from tests.cache.databases import MARIADB, empty_mariadb
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


COLUMNS = {
    "vector_stores": "(:namespace, :id, :name, 'e', 1.0, 7, :details)",
    "vector_store_documents": "(:namespace, 'vs_1', :id, 2.0, 4, 2, :attributes, :text)",
    "vector_store_chunks": "(:namespace, 'vs_1', :id, :ordinal, :text, :embedding)",
}


def insert(connection: Connection, table: str, **row: Any) -> None:
    connection.execute(text(f"INSERT INTO {table} VALUES {COLUMNS[table]}"), row)  # noqa: S608


def make_tables(connection: Connection) -> None:
    for statement in FIRST_RELEASE.split(";")[:-1]:
        connection.exec_driver_sql(statement)


def first_release(url: str) -> None:
    """Two namespaces with equal ids, and a collection without documents."""
    with opened(url) as database, database.write() as connection:
        make_tables(connection)
        for namespace in "ab":
            for store in ("vs_1", "vs_2"):
                insert(connection, "vector_stores", namespace=namespace, id=store, name=f"{namespace} {store}", details='{"k": "v"}')
            for document in ("doc_1", "doc_2"):
                row = {"namespace": namespace, "id": document}
                insert(connection, "vector_store_documents", **row, attributes='{"n": 1.5}', text=f"{namespace} {document}")
                for ordinal, vector in enumerate(np.eye(2, dtype="<f4")):
                    named = f"{namespace} {document} {ordinal}"
                    insert(connection, "vector_store_chunks", **row, ordinal=ordinal, text=named, embedding=vector.tobytes())


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """As it is, without migrations."""
    database = Database(url, StorageError)
    yield database
    database.close()


def without_documents(connection: Connection) -> None:
    """Only what this store has made is dropped: others share the server's database."""
    there = set(inspect(connection).get_table_names())
    for table in there & {VERSION_TABLE, *metadata.tables, *COLUMNS}:
        connection.exec_driver_sql(f"DROP TABLE {table}")


@pytest.fixture(params=["sqlite", "mariadb"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database that has none of the tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/documents.db"
        return
    empty_mariadb().close()
    with opened(MARIADB) as database:
        with database.write() as connection:
            without_documents(connection)
        yield MARIADB
        with database.write() as connection:
            without_documents(connection)


@pytest.fixture
def url(empty: str) -> str:
    first_release(empty)
    return empty


def test_a_database_of_the_first_release_goes_on(url: str) -> None:
    store = DocumentStore(url, "e")
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


def test_a_migration_that_was_stopped_before_the_old_tables_were_gone_is_made_again(url: str) -> None:
    """As on MySQL, which commits after each statement."""
    open_database(url).close()
    with opened(url) as database, database.write() as connection:
        make_tables(connection)
        insert(connection, "vector_stores", namespace="c", id="vs_9", name="", details="{}")
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")  # noqa: S608
    store = DocumentStore(url, "e")
    assert [info.id for _, info in store.list_stores(["a", "b", "c"], Page())] == ["vs_9"]
    store.close()


def test_the_migrations_make_the_schema(empty: str) -> None:
    database = open_database(empty)
    with database.read() as connection:
        there = set(inspect(connection).get_table_names())
        assert there >= set(metadata.tables)
        assert not there & set(COLUMNS)
        options = {"version_table": VERSION_TABLE, "compare_type": True, "include_name": is_ours}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    database.close()


def is_ours(name: str | None, kind: str, parents: object) -> bool:
    return kind != "table" or str(name).startswith("retrieval_")


def test_mysql_gets_types_that_hold_it() -> None:
    statements = {table.name: str(CreateTable(table).compile(dialect=mysql.dialect())) for table in metadata.sorted_tables}
    assert "text LONGTEXT" in statements["retrieval_chunks"]
    assert "seq BIGINT NOT NULL AUTO_INCREMENT" in statements["retrieval_chunks"]
    assert all("utf8mb4_bin" in statement for statement in statements.values())
