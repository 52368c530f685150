"""The databases that the contract of the stores runs on."""

from pathlib import Path

import pytest
from sqlalchemy import delete

from cache.errors import StoreError
from cache.stores.schema import metadata
from cache.stores.sql import SqlEntryStore, open_database

MARIADB = "mysql+pymysql://mygo:mygo@127.0.0.1:13306/mygo?charset=utf8mb4"
"""As `scripts/services up` starts it."""


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
