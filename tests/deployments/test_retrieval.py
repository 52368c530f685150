"""The retrieval deployment: what it offers by name, and what it does before anybody asks."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cache.embedders.fake import DIMENSION, HashedWordsEmbedder
from deployments.adding import PLACES
from deployments.direct import DirectCalls
from deployments.embedding import Described, Embedded
from deployments.replicas import Replica, ReplicaDirectory
from deployments.retrieval import THREADS, Refused, Retrieval, RetrievalCalls
from deployments.retrieval_metrics import RetrievalMetrics
from retrieval.config import FilesConfig, RetrievalConfig
from retrieval.documents import Attachment, Begun, Document, SearchRequest
from retrieval.errors import BusyError, DocumentError, OversizeError, QueryError, StorageError, UnknownStoreError, UnknownTicketError
from retrieval.ingest import IngestCounts
from retrieval.result_cache import Counts
from retrieval.scopes import Access
from retrieval.service import BATCH_CHUNKS
from serve_app.services import RemoteDocuments
from tests.deployments.asking_encoders import requests_that_ask
from tests.deployments.replica_fakes import SECRET
from tests.retrieval.searching import slow_stages
from tests.retrieval.tiers import attach, make_tier
from tests.serve_app.fakes import eventually

A = Access("a", {"team": "g"})


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

    async def _embed_one(self, text: str, whose: str) -> Embedded:
        return (await self._embed([text]))[0]

    async def _count_tokens(self, texts: list[str]) -> list[int]:
        return self._embedder.count_tokens(texts)


class Deployment(Retrieval):
    """Serve awaits `__del__`, Python's own collector does not."""

    def __del__(self) -> None: ...  # type: ignore[override]


@pytest.fixture
async def retrieval(tmp_path: Path) -> AsyncIterator[Retrieval]:
    retrieval = Deployment(RetrievalConfig(files=FilesConfig(max_bytes=10)), tmp_path, Encoder(), "127.0.0.1", SECRET)
    yield retrieval
    await retrieval.close()


@pytest.fixture
async def calls(retrieval: Retrieval) -> AsyncIterator[DirectCalls]:
    await retrieval.check_health()
    directory = ReplicaDirectory()
    directory.replace([Replica.from_metadata("r", retrieval.record_replica_metadata())])
    calls = DirectCalls(RetrievalCalls, directory, None, SECRET, 10)
    yield calls
    calls.close()


async def test_documents_are_added_and_found(retrieval: Retrieval) -> None:
    await retrieval.open()
    store = await retrieval.call("create_store", A, "", {}, "team")
    await retrieval.call("add_documents", A, store.id, [Document("x", "Bees make honey."), Document("y", "tea")])
    found = await retrieval.search(A, SearchRequest([store.id], ["honey"], 1))
    assert ([hit.chunk.document_id for hit in found.hits], found.scopes) == (["x"], {store.id: "g"})


async def test_searches_come_over_the_private_channel(retrieval: Retrieval, calls: DirectCalls) -> None:
    documents = RemoteDocuments(calls, None)
    store = await retrieval.call("create_store", A, "", {}, "team")
    attributes: dict[str, str | int | float | bool] = {"kind": "insect", "legs": 6.0, "flies": True, "year": 2026}
    await retrieval.call("add_documents", A, store.id, [Document("x", "Bees make honey.", attributes), Document("y", "honey, honey")])
    parts = [{"type": "eq", "key": "flies", "value": True}, {"type": "in", "key": "legs", "value": [6, 8]}]
    asked = SearchRequest([store.id], ["honey"], 2, {"type": "and", "filters": parts}, 0.1)
    result = await documents.search(A, asked)
    assert result == await retrieval.search(A, asked)
    assert [(hit.chunk.name, hit.chunk.text, hit.chunk.attributes) for hit in result.hits] == [("x", "Bees make honey.", attributes)]
    assert [type(value) for value in result.hits[0].chunk.attributes.values()] == [str, float, bool, int]
    assert (result.versions, result.scopes) == ({store.id: 1}, {store.id: "g"})
    assert await documents.begin_search(A, asked) == Begun(result)
    several = await documents.search(A, SearchRequest([store.id], ["honey", "bees"], 2))
    assert {hit.chunk.document_id for hit in several.hits} == {"x", "y"}


async def test_a_search_in_two_steps_over_the_private_channel(
    retrieval: Retrieval, calls: DirectCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = slow_stages(monkeypatch)
    documents = RemoteDocuments(calls, None)
    store = await retrieval.call("create_store", "a", "")
    await retrieval.call("add_documents", "a", store.id, [Document("x", "Bees make honey."), Document("y", "tea")])
    begun = await documents.begin_search("a", SearchRequest([store.id], ["honey"], 2))
    assert begun.ticket is not None
    assert len(begun.result.hits) == 1
    with pytest.raises(UnknownTicketError):
        await documents.end_search("b", begun.ticket)
    may_end.set()
    final = await documents.end_search("a", begun.ticket)
    assert [hit.chunk.document_id for hit in final.hits] == ["x", "y"]
    assert final.versions == begun.result.versions
    with pytest.raises(UnknownTicketError):
        await documents.end_search("a", begun.ticket)
    assert await documents.begin_search("a", SearchRequest([store.id], ["honey"], 2)) == Begun(final)


async def test_errors_of_searches_arrive_as_themselves(calls: DirectCalls) -> None:
    documents = RemoteDocuments(calls, None)
    with pytest.raises(UnknownStoreError) as unknown:
        await documents.search("a", SearchRequest(["vs_none", "vs_other"], ["q"], 1))
    assert unknown.value.id == "vs_none"
    with pytest.raises(QueryError) as refused:
        await documents.begin_search("a", SearchRequest([], ["q"], 0))
    assert refused.value.field == "top_k"
    assert "allowed: 1 to" in str(refused.value)


async def test_searches_do_not_wait_for_what_takes_minutes(retrieval: Retrieval, calls: DirectCalls) -> None:
    store = await retrieval.call("create_store", "a", "")
    may_end = threading.Event()
    busy = [asyncio.get_running_loop().run_in_executor(retrieval._threads, may_end.wait) for _ in range(THREADS)]
    try:
        assert (await RemoteDocuments(calls, None).search("a", SearchRequest([store.id], ["q"], 1))).hits == []
    finally:
        may_end.set()
        await asyncio.gather(*busy)


class HeldUp(Encoder):
    """Encodes nothing before it `may_end`."""

    def __init__(self) -> None:
        super().__init__()
        self.may_end = asyncio.Event()
        self.asked: list[str] = []

    async def _embed(self, texts: list[str]) -> list[Embedded]:
        self.asked += texts
        await self.may_end.wait()
        return await super()._embed(texts)


@pytest.fixture
async def held_up(tmp_path: Path) -> AsyncIterator[Retrieval]:
    retrieval = Deployment(RetrievalConfig(), tmp_path, HeldUp(), "127.0.0.1", SECRET)
    yield retrieval
    retrieval._embedding.may_end.set()
    await retrieval.close()


async def test_nothing_waits_behind_documents_that_are_added(held_up: Retrieval) -> None:
    mine, theirs = [await held_up.call("create_store", name, "") for name in "ab"]
    several = [Document(str(number), "Bees make honey.") for number in range(2)]
    adding = [asyncio.create_task(held_up.call("add_documents", "a", mine.id, several)) for _ in range(PLACES)]
    await eventually(lambda: len(held_up._embedding.asked) == len(several) * PLACES // 2, 20)
    for each in adding:
        each.cancel()  # its client has left; the encoder is still at it
    given = await asyncio.gather(*adding, return_exceptions=True)
    assert {type(each.error) for each in given if isinstance(each, Refused)} == {BusyError}
    async with asyncio.timeout(20):
        for _ in range(THREADS):
            assert await held_up.call("list_stores", "b") == [theirs]
        assert isinstance((await held_up.call("add_documents", "a", mine.id, several)).error, BusyError)
        other = asyncio.create_task(held_up.call("add_documents", "b", theirs.id, several))
        await eventually(lambda: len(held_up._embedding.asked) == len(several) * (PLACES // 2 + 1), 20)
        held_up._embedding.may_end.set()
        assert await other == ["0", "1"]


async def test_documents_that_are_being_added_do_not_hold_up_the_end(held_up: Retrieval) -> None:
    store = await held_up.call("create_store", "a", "")
    many = [Document(str(number), "Bees make honey.") for number in range(3 * BATCH_CHUNKS)]
    adding = asyncio.create_task(held_up.call("add_documents", "a", store.id, many))
    async with asyncio.timeout(20):
        await eventually(lambda: held_up._embedding.asked, 20)
        closing = asyncio.create_task(held_up.close())
        await eventually(held_up._adding._stopping.is_set, 20)
        held_up._embedding.may_end.set()  # which needs this event loop
        with pytest.raises(StorageError, match="not added"):
            await adding
        await closing
    assert len(held_up._embedding.asked) == BATCH_CHUNKS
    with pytest.raises(StorageError, match="being closed"):
        await held_up.call("add_documents", "a", store.id, many)
    with pytest.raises(StorageError, match="being closed"):
        await held_up.call("list_stores", "a")


def test_counters_are_told_as_they_grow() -> None:
    told: list[tuple[str, float, dict[str, str]]] = []

    class Metric:
        def __init__(self, name: str, description: str, keys: tuple[str, ...]) -> None:
            self.name = name

        def inc(self, number: float, tags: dict[str, str]) -> None:
            told.append((self.name, number, tags))

        def set(self, number: float) -> None:
            told.append((self.name, number, {}))

    metrics = RetrievalMetrics(Metric, Metric)
    metrics.tell(Counts(exact=2, misses=1), IngestCounts(failed=1, chunks=64, seconds=1.5), 3)
    metrics.tell(Counts(exact=2, misses=4, evicted=1), IngestCounts(failed=1, completed=1, chunks=70, seconds=2.0), 0)
    assert told == [
        ("mygo_retrieval_searches", 2, {"outcome": "exact"}),
        ("mygo_retrieval_searches", 1, {"outcome": "miss"}),
        ("mygo_ingest_files", 1, {"status": "failed"}),
        ("mygo_ingest_chunks", 64, {}),
        ("mygo_ingest_seconds", 1.5, {}),
        ("mygo_ingest_waiting_files", 3, {}),
        ("mygo_retrieval_searches", 3, {"outcome": "miss"}),
        ("mygo_retrieval_results_dropped", 1, {"reason": "evicted"}),
        ("mygo_ingest_files", 1, {"status": "completed"}),
        ("mygo_ingest_chunks", 6, {}),
        ("mygo_ingest_seconds", 0.5, {}),
        ("mygo_ingest_waiting_files", 0, {}),
    ]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("get_store", "a", "vs_none"), UnknownStoreError),
        (("create_store", "a", "\n"), DocumentError),
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


async def test_an_encoder_that_never_answers_does_not_hold_up_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder: Any = Encoder()
    encoder.describe = SimpleNamespace(remote=asyncio.Event().wait)
    retrieval = Deployment(RetrievalConfig(), tmp_path, encoder, "127.0.0.1", SECRET)
    await retrieval.check_health()
    calls = [asyncio.create_task(retrieval.call("stores", "a")) for _ in range(2)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await retrieval.close()
        for each in calls:
            with pytest.raises(StorageError, match="being closed"):
                await each
    with pytest.raises(StorageError, match="being closed"):
        await retrieval.open()
    assert not caplog.records


async def test_the_encoder_is_asked_outside_of_the_request_that_comes_first(tmp_path: Path) -> None:
    encoder = Encoder()
    seen = requests_that_ask(encoder)
    retrieval = Deployment(RetrievalConfig(), tmp_path, encoder, "127.0.0.1", SECRET)
    await retrieval.open()
    await retrieval.close()
    assert seen == [""]
