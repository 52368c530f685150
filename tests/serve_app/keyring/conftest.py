from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from serve_app.errors import KeyringError
from serve_app.keyring.schema import metadata, revision
from serve_app.keyring.store import KeyStore, open_keyring
from tests.cache.databases import MARIADB


@pytest.fixture(params=["sqlite", "mariadb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyStore]:
    opened = open_keyring(f"sqlite:///{tmp_path}/keyring.db") if request.param == "sqlite" else _empty_mariadb()
    yield opened
    opened.close()


def _empty_mariadb() -> KeyStore:
    """Skips the test when there is no server."""
    try:
        opened = open_keyring(MARIADB)
    except KeyringError as error:
        pytest.skip(f"MariaDB is not up (scripts/services up): {str(error)[:60]}")
    with opened._database.write() as connection:
        for table in metadata.sorted_tables:
            connection.execute(update(revision).values(revision=0) if table is revision else delete(table))
    return opened
