from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.embedders.bert import BertEmbedder
from cache.embedders.sentence import SentenceEmbedder
from cache.embedders.sources import PACKAGED, locate
from cache.stores.sql import SqlEntryStore
from tests.cache.databases import empty_mariadb, sqlite_store


@pytest.fixture(params=["sqlite", "mariadb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlEntryStore]:
    opened = sqlite_store(tmp_path) if request.param == "sqlite" else empty_mariadb()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def real() -> SentenceEmbedder:
    return SentenceEmbedder(threads=1)


@pytest.fixture(scope="module")
def bert() -> BertEmbedder:
    return BertEmbedder(PACKAGED, locate(PACKAGED), threads=1)


@pytest.fixture(scope="module")
def int8() -> BertEmbedder:
    return BertEmbedder(PACKAGED, locate(PACKAGED), threads=1, precision="int8")
