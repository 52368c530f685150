from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.stores.sql import SqlEntryStore
from tests.cache.databases import empty_mariadb, sqlite_store


@pytest.fixture(params=["sqlite", "mariadb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlEntryStore]:
    opened = sqlite_store(tmp_path) if request.param == "sqlite" else empty_mariadb()
    yield opened
    opened.close()
