from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from cache.embedders.fake import HashedWordsEmbedder
from retrieval.config import RetrievalConfig
from retrieval.service import RetrievalService
from retrieval.store import DocumentStore
from retrieval.tier import RetrievalTier
from tests.retrieval.searching import shrink
from tests.retrieval.tiers import Encoder, make_tier, service_of

NOW = 1_700_000_000.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'data' / 'documents.sqlite'}"


@pytest.fixture
def store(url: str) -> Iterator[DocumentStore]:
    store = DocumentStore(url, HashedWordsEmbedder().name)
    yield store
    store.close()


@pytest.fixture
def new_store_id() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"vs_{next(numbers):024x}"


@pytest.fixture
def service(store: DocumentStore, new_store_id: Callable[[], str]) -> RetrievalService:
    config = RetrievalConfig(chunk_tokens=16, chunk_overlap_tokens=4, max_top_k=10, max_document_bytes=10_000)
    return service_of(store, HashedWordsEmbedder(), config, new_store_id)


@pytest.fixture
def indexes(tmp_path: Path) -> Path:
    return tmp_path / "indexes"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def tier(tmp_path: Path, encoder: Encoder) -> Iterator[RetrievalTier]:
    tier = make_tier(tmp_path, encoder)
    yield tier
    tier.close()


@pytest.fixture
def store_id(tier: RetrievalTier) -> str:
    return tier.service.create_store("a", "").id
