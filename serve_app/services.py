"""What the pipeline calls: contracts, and their implementations over private channels and Ray's handles."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from cache.cascade import Decision, Query
from cache.entry import Entry
from cache.policy import Policy
from cache.semantic import Found
from cache.stores.base import Known
from deployments.embedding import BATCH_TEXTS, Embedded
from deployments.errors import PartError
from deployments.handles import remote
from deployments.retrieval import Refused
from retrieval.documents import Begun, SearchRequest, SearchResult
from retrieval.scopes import Caller

T = TypeVar("T")
CALL_TIMEOUT_S = 30.0
INGEST_TIMEOUT_S = 600.0
"""Adding documents encodes them: about 100 chunks in 10 s on one core."""


class CacheService(Protocol):
    """The shared cache. Any call may raise, or never return: the caller bounds it and takes failure for a miss."""

    async def find(self, namespace: str, key: str, fingerprint: str, text: str | None) -> Known: ...

    async def epoch(self, namespace: str) -> int: ...

    async def search(self, query: Query, policy: Policy) -> Found: ...

    async def keep(self, entries: list[Entry]) -> None:
        """All of them, or none."""

    async def learn(self, namespace: str, decision: Decision, answer: bytes, served: bool) -> bool | None: ...

    async def call(self, method: str, *args: Any) -> Any:
        """A method of `cache.semantic.SemanticCache` that `deployments.cache_owner.CALLABLE` lists, by name."""

    async def acquire(self, namespace: str, key: str, epoch: int, owner: str, for_s: float) -> Entry | bool: ...

    async def release(self, namespace: str, key: str, epoch: int, owner: str) -> None: ...


class Calls(Protocol):
    """See `deployments.direct.DirectCalls`."""

    async def call(self, name: str, *args: Any) -> Any: ...


class EmbeddingService(Protocol):
    """The sentence encoder. May raise."""

    async def embed_one(self, text: str, whose: str) -> Embedded:
        """`whose`: see `deployments.embedding.EmbeddingCalls.embed_one`."""

    async def embed(self, texts: list[str]) -> list[Embedded]: ...


class DocumentService(Protocol):
    """Documents that a caller may reach. Raises the errors of `retrieval.errors`, and `DeploymentError`."""

    async def search(self, caller: Caller, request: SearchRequest) -> SearchResult:
        """See `retrieval.service.RetrievalService.search`."""

    async def begin_search(self, caller: Caller, request: SearchRequest) -> Begun:
        """See `retrieval.service.RetrievalService.begin_search`."""

    async def end_search(self, namespace: str, ticket: str) -> SearchResult:
        """Raises `UnknownTicketError` for a search that was begun too long ago, or in a process that is gone: it is to be made anew."""

    async def call(self, method: str, *args: Any) -> Any:
        """Any call of `retrieval.tier.RetrievalTier`, by name."""


async def answer_of(call: Awaitable[T], what: str, limit_s: float = CALL_TIMEOUT_S) -> T:
    """The result of a call of another part, or the error that the other process raised, without that process's stack.

    Raises `PartError` when the part does not answer within `limit_s` seconds, or not at all.
    """
    try:
        async with asyncio.timeout(limit_s):
            return await call
    except RayTaskError as error:
        raise error.cause from None
    except (RayError, RayServeException, TimeoutError) as error:
        raise PartError(f"{what} did not answer") from error


class RemoteCache:
    """The cache owner: what requests wait for directly, the rest through its handle."""

    def __init__(self, calls: Calls, handle: Any) -> None:
        """`calls`: of `deployments.cache_owner.CacheCalls`."""
        self._calls = calls
        self._handle = handle

    async def find(self, namespace: str, key: str, fingerprint: str, text: str | None) -> Known:
        known: Known = await answer_of(self._calls.call("find", namespace, key, fingerprint, text), "the cache")
        return known

    async def epoch(self, namespace: str) -> int:
        epoch: int = await answer_of(self._calls.call("epoch", namespace), "the cache")
        return epoch

    async def search(self, query: Query, policy: Policy) -> Found:
        found: Found = await answer_of(self._calls.call("search", query, policy), "the cache")
        return found

    async def keep(self, entries: list[Entry]) -> None:
        await answer_of(self._calls.call("keep", entries), "the cache")

    async def learn(self, namespace: str, decision: Decision, answer: bytes, served: bool) -> bool | None:
        label: bool | None = await answer_of(self._calls.call("learn", namespace, decision, answer, served), "the cache")
        return label

    async def call(self, method: str, *args: Any) -> Any:
        return await answer_of(remote(self._handle.call, method, *args), "the cache")

    async def acquire(self, namespace: str, key: str, epoch: int, owner: str, for_s: float) -> Entry | bool:
        found: Entry | bool = await answer_of(self._calls.call("acquire", namespace, key, epoch, owner, for_s), "the cache")
        return found

    async def release(self, namespace: str, key: str, epoch: int, owner: str) -> None:
        await answer_of(self._calls.call("release", namespace, key, epoch, owner), "the cache")


class RemoteEmbedding:
    """The embedding deployment. `calls`: of `deployments.embedding.EmbeddingCalls`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def embed_one(self, text: str, whose: str) -> Embedded:
        embedded: Embedded = await answer_of(self._calls.call("embed_one", text, whose), "the encoder")
        return embedded

    async def embed(self, texts: list[str]) -> list[Embedded]:
        """In calls of at most `BATCH_TEXTS`, so that each is short and other callers get their turn between them."""
        parts = [texts[start : start + BATCH_TEXTS] for start in range(0, len(texts), BATCH_TEXTS)]
        batches: list[list[Embedded]] = [await answer_of(self._calls.call("embed", part), "the encoder") for part in parts]
        return [embedded for batch in batches for embedded in batch]


class RemoteDocuments:
    """The retrieval deployment: searches directly, the rest through its handle."""

    def __init__(self, calls: Calls, handle: Any) -> None:
        """`calls`: of `deployments.retrieval.RetrievalCalls`."""
        self._calls = calls
        self._handle = handle

    async def search(self, caller: Caller, request: SearchRequest) -> SearchResult:
        result: SearchResult = await self._search("search", caller, request)
        return result

    async def begin_search(self, caller: Caller, request: SearchRequest) -> Begun:
        begun: Begun = await self._search("begin_search", caller, request)
        return begun

    async def end_search(self, namespace: str, ticket: str) -> SearchResult:
        result: SearchResult = await self._search("end_search", namespace, ticket)
        return result

    async def _search(self, name: str, *args: Any) -> Any:
        return await answer_of(self._calls.call(name, *args), "the document store")

    async def call(self, method: str, *args: Any) -> Any:
        limit_s = INGEST_TIMEOUT_S if method == "add_documents" else CALL_TIMEOUT_S
        result = await answer_of(remote(self._handle.call, method, *args), "the document store", limit_s)
        if isinstance(result, Refused):
            raise result.error
        return result
