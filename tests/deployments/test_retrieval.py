"""The retrieval deployment: what it offers by name, and what it does before anybody asks."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cache.embedders.fake import DIMENSION, HashedWordsEmbedder
from deployments.embedding import Described, Embedded
from deployments.retrieval import Refused, Retrieval
from retrieval.config import FilesConfig, RetrievalConfig
from retrieval.documents import Attachment, Document
from retrieval.errors import DocumentError, OversizeError, QueryError, UnknownStoreError
from retrieval.scopes import Group
from tests.retrieval.tiers import attach, make_tier
from tests.serve_app.fakes import eventually


class Encoder:
    """A handle of the embedding deployment."""

    def __init__(self) -> None:
        self._embedder = HashedWordsEmbedder()
        for name in ("describe", "embed", "embed_one", "count_tokens"):
            setattr(self, name, SimpleNamespace(remote=getattr(self, f"_{name}")))

    async def _describe(self) -> Described:
        return Described("hashed-words@1", DIMENSION, 256, "fake")

    async def _embed(self, texts: list[str]) -> list[Embedded]:
        return [Embedded(vector, 1) for vector in self._embedder.embed(texts)]

    async def _embed_one(self, text: str) -> Embedded:
        return (await self._embed([text]))[0]

    async def _count_tokens(self, texts: list[str]) -> list[int]:
        return self._embedder.count_tokens(texts)


class Deployment(Retrieval):
    """Serve awaits `__del__`, Python's own collector does not."""

    def __del__(self) -> None: ...  # type: ignore[override]


@pytest.fixture
async def retrieval(tmp_path: Path) -> AsyncIterator[Retrieval]:
    groups = {"team": Group("g", frozenset(("a",)))}
    retrieval = Deployment(RetrievalConfig(files=FilesConfig(max_bytes=10)), tmp_path, Encoder(), "secret", groups)
    yield retrieval
    await retrieval.close()


async def test_documents_are_added_and_found(retrieval: Retrieval) -> None:
    await retrieval.open()
    store = await retrieval.call("create_store", "a", "", {}, "team")
    await retrieval.call("add_documents", "a", store.id, [Document("x", "Bees make honey."), Document("y", "tea")])
    found = await retrieval.call("search", "a", [store.id], "honey", 1)
    assert ([hit.chunk.document_id for hit in found.hits], found.scopes) == (["x"], {store.id: "g"})


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("get_store", "a", "vs_none"), UnknownStoreError),
        (("create_store", "a", "\n"), DocumentError),
        (("search", "a", [], "q", 0), QueryError),
    ],
)
async def test_what_is_the_callers_to_mend_is_a_value(retrieval: Retrieval, call: tuple[Any, ...], error: type[Exception]) -> None:
    """Ray logs what a method raises, with its stack, as this deployment's failure."""
    answer = await retrieval.call(*call)
    assert isinstance(answer, Refused)
    assert type(answer.error) is error


async def test_a_file_that_is_too_long_is_a_value(retrieval: Retrieval) -> None:
    upload = await retrieval.call("begin_upload", "a", 0)
    answer = await retrieval.call("append_upload", "a", upload, 0, bytes(11))
    assert isinstance(answer, Refused)
    assert isinstance(answer.error, OversizeError)


async def test_only_the_tiers_own_calls_are_for_callers(retrieval: Retrieval) -> None:
    for name in ("close", "call", "__init__", "sweep", "_read"):
        with pytest.raises(LookupError):
            await retrieval.call(name, "a")


async def test_files_that_an_earlier_process_left_are_read_before_anybody_asks(tmp_path: Path, retrieval: Retrieval) -> None:
    tier = make_tier(tmp_path)
    store_id = tier.service.create_store("a", "").id
    file_id = attach(tier, store_id, "Bees make honey.")
    await retrieval.check_health()
    await eventually(lambda: tier.attachments.get_attached("a", store_id, file_id).status == "completed", 20)
    await retrieval.call("attach_file", "a", store_id, Attachment(file_id))
    await eventually(lambda: tier.service.get_store("a", store_id).version == 2, 20)
    tier.close()


async def test_an_encoder_that_is_not_there_yet_ends_nothing(retrieval: Retrieval, caplog: pytest.LogCaptureFixture) -> None:
    describe = retrieval._embedding.describe

    async def fail() -> Described:
        raise RuntimeError("not yet")

    retrieval._embedding.describe = SimpleNamespace(remote=fail)
    with caplog.at_level(logging.WARNING, "ray.serve"):
        await retrieval.check_health()
        assert retrieval._opening
        await retrieval._opening
    assert "not opened" in caplog.text
    retrieval._embedding.describe = describe
    assert (await retrieval.call("create_store", "a", "x")).name == "x"
