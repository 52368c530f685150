"""The services over Ray's handles: what a handle gives becomes what the pipeline knows."""

import asyncio
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError, RayTaskError

from cache.cascade import Decision, Query, Reason
from cache.policy import Policy
from cache.semantic import Found
from cache.stores.base import Known
from deployments.embedding import BATCH_TEXTS, Embedded
from deployments.errors import PartError
from deployments.retrieval import Refused
from retrieval.documents import Begun, Chunk, SearchHit, SearchRequest, SearchResult
from retrieval.errors import UnknownStoreError
from serve_app.services import RemoteCache, RemoteDocuments, RemoteEmbedding, answer_of
from tests.cache.entries import make_entry, unit


class FakeHandle:
    """Every method answers with the same result, or raises it."""

    def __init__(self, result: Any) -> None:
        self._result = result
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        handle = self

        class Method:
            @staticmethod
            async def remote(*args: Any) -> Any:
                handle.calls.append((name, *args))
                if isinstance(handle._result, Exception):
                    raise handle._result
                return handle._result

        return Method


class FakeCalls:
    """Direct calls, all of which have one result, or raise it."""

    def __init__(self, result: Any) -> None:
        self._result = result
        self.calls: list[tuple[Any, ...]] = []

    async def call(self, name: str, *args: Any) -> Any:
        self.calls.append((name, *args))
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


def documents_of(handle: Any) -> RemoteDocuments:
    calls: Any = None
    return RemoteDocuments(calls, handle)


def cache_of(calls: Any, handle: Any = None) -> RemoteCache:
    return RemoteCache(calls, handle)


async def test_the_caches_answers() -> None:
    entry, query = make_entry(), Query("a1", "f1", "text", unit(1, 0))
    for found in (Known(3, entry), Known(0)):
        calls = FakeCalls(found)
        assert await cache_of(calls).find("a1", "k", "f1", None) is found
        assert calls.calls == [("find", "a1", "k", "f1", None)]
    hit = Found(Decision(Reason.HIT), entry)
    assert await cache_of(FakeCalls(hit)).search(query, Policy()) is hit
    assert await cache_of(FakeCalls(7)).epoch("a1") == 7
    calls = FakeCalls(None)
    await cache_of(calls).keep([entry])
    assert calls.calls == [("keep", [entry])]
    handle = FakeHandle(2)
    assert await cache_of(None, handle).call("delete", "a1", ["x", "y"]) == 2
    assert handle.calls == [("call", "delete", "a1", ["x", "y"])]


async def test_the_encoders_answers() -> None:
    embedded = Embedded(np.zeros(2, np.float32), 3)
    assert await RemoteEmbedding(FakeCalls(embedded)).embed_one("x", "ns") is embedded
    calls = FakeCalls([embedded])
    assert await RemoteEmbedding(calls).embed(["x"]) == [embedded]
    assert calls.calls == [("embed", ["x"])]


async def test_many_texts_are_encoded_in_short_calls() -> None:
    embedded = Embedded(np.zeros(2, np.float32), 3)
    calls = FakeCalls([embedded])
    texts = [str(i) for i in range(2 * BATCH_TEXTS + 1)]
    assert await RemoteEmbedding(calls).embed(texts) == [embedded] * 3
    assert [text for _, batch in calls.calls for text in batch] == texts
    assert max(len(batch) for _, batch in calls.calls) == BATCH_TEXTS


async def test_the_documents_answers() -> None:
    hit = SearchHit(Chunk("a", 0, "x"), 0.5)
    result = SearchResult([hit], {"vs": 1}, {"vs": "n"})
    calls, asked = FakeCalls(result), SearchRequest(["vs"], ["q"], 3, {"type": "eq", "key": "k", "value": 1})
    assert await RemoteDocuments(calls, None).search("n", asked) is result
    assert calls.calls == [("search", "n", asked)]
    begun = Begun(result, "t")
    calls = FakeCalls(begun)
    assert await RemoteDocuments(calls, None).begin_search("n", asked) is begun
    assert calls.calls == [("begin_search", "n", asked)]
    calls = FakeCalls(result)
    assert await RemoteDocuments(calls, None).end_search("n", "t") is result
    assert calls.calls == [("end_search", "n", "t")]
    handle = FakeHandle([])
    assert await documents_of(handle).call("list_stores", "n") == []
    assert handle.calls == [("call", "list_stores", "n")]


async def test_what_the_documents_refuse_is_raised_here() -> None:
    with pytest.raises(UnknownStoreError):
        await documents_of(FakeHandle(Refused(UnknownStoreError("no")))).call("get_store", "n", "vs")


async def test_an_error_of_the_other_process_is_raised_as_itself() -> None:
    error = RayTaskError("call", "a stack of another process", UnknownStoreError("no"))
    with pytest.raises(UnknownStoreError) as caught:
        await documents_of(FakeHandle(error)).call("get_store", "n", "vs")
    assert "stack" not in str(caught.value)
    with pytest.raises(UnknownStoreError):
        await RemoteDocuments(FakeCalls(error), None).search("n", SearchRequest(["vs"], ["q"], 1))  # Ray's handle, where no channel is


@pytest.mark.parametrize("error", [RayActorError(), TimeoutError()], ids=lambda error: type(error).__name__)
async def test_a_part_that_does_not_answer_is_named(error: Exception) -> None:
    with pytest.raises(PartError, match="the cache did not answer"):
        await cache_of(FakeCalls(error)).epoch("a1")


async def test_a_part_is_not_waited_for_without_end() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(PartError, match="the encoder did not answer"):
        await answer_of(hang(), "the encoder", limit_s=0.01)
