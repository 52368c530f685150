"""The servers that contracts run on, if they are up."""

import socket
from pathlib import Path

import pytest
from sqlalchemy import delete

from cache.errors import StoreError
from cache.stores.schema import metadata
from cache.stores.sql import SqlEntryStore, open_database

MARIADB = "mysql+pymysql://mygo:mygo@127.0.0.1:13306/mygo_test?charset=utf8mb4"
"""These two as `scripts/services up` starts them. The database is emptied: it is not the one that applications are given."""
MILVUS = ("127.0.0.1", 19531)


def sqlite_store(directory: Path) -> SqlEntryStore:
    return SqlEntryStore(open_database(f"sqlite:///{directory}/cache.db"))


def empty_mariadb() -> SqlEntryStore:
    """Skips the test when there is no server."""
    try:
        database = open_database(MARIADB)
    except StoreError as error:
        pytest.skip(f"MariaDB is not up (scripts/services up): {str(error)[:60]}")
    with database.write() as connection:
        for table in metadata.sorted_tables:
            connection.execute(delete(table))
    return SqlEntryStore(database)


def milvus_url() -> str:
    """Skips the test when there is no server."""
    try:
        socket.create_connection(MILVUS, timeout=1).close()
    except OSError:
        pytest.skip("no Milvus on port 19531: scripts/services up milvus")
    return f"milvus://{MILVUS[0]}:{MILVUS[1]}"
