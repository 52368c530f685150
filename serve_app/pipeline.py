"""The life of a generation request: DESIGN's nine steps, in order, each one call into a lower part.

A request with documents is answered from what it says *and* what they say, so its documents are fetched before its
exact key is built.
"""

import asyncio
import hashlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from cache.entry import Entry, Vector
from cache.exact import AnswerLru
from cache.keys import exact_key, fingerprint
from deployments.errors import DeploymentError, ReplicaLostError
from deployments.replica_client import Answer, Call, ReplicaClient
from deployments.replicas import Replica, ReplicaDirectory
from deployments.routing import RoutingPolicy
from retrieval.prompt import assemble
from serve_app.config import AppConfig
from serve_app.errors import ApiError, InvalidRequestError, NotFoundError, to_api_error
from serve_app.keeper import Keeper
from serve_app.metrics import Metrics
from serve_app.openai import answers, engine_errors, sse
from serve_app.openai.keys import key_material, last_question, question_of
from serve_app.openai.requests import Generation
from serve_app.replies import JSON_TYPE, SSE_TYPE, Reply
from serve_app.services import CacheService, EmbeddingService, RetrievalService, SemanticHit
from serve_app.tenants import Authenticator

T = TypeVar("T")
log = logging.getLogger("ray.serve")

CACHE_TIMEOUT_S = 2.0
"""A cache that answers later than this is slower than no cache."""
MAX_ERROR_BYTES = 64 * 1024


class _Tokenized(msgspec.Struct):
    """What an engine's `/tokenize` says of a prompt; an error of its has no count."""

    count: int


@dataclass(frozen=True, slots=True)
class Caller:
    """What a request's headers say."""

    request_id: str
    tenant: str | None
    no_store: bool = False
    no_cache: bool = False


@dataclass(slots=True)
class Lookup:
    """What the cache is asked, and what the answer will be kept under."""

    namespace: str
    key: str
    read: bool
    write: bool
    semantic: bool
    ttl_s: float
    text: str | None = None
    fingerprint: str = ""
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One for each ingress replica."""

    config: AppConfig
    authenticator: Authenticator
    lru: AnswerLru
    cache: CacheService
    embedding: EmbeddingService
    retrieval: RetrievalService | None
    directory: ReplicaDirectory
    policy: RoutingPolicy
    client: ReplicaClient
    keeper: Keeper
    metrics: Metrics
    clock: Callable[[], float] = time.time

    async def generate(self, request: Generation, caller: Caller) -> Reply:
        """The answer to a checked request. Raises `ApiError`."""
        namespace = self.authenticator.namespace(caller.tenant)  # 1
        self._admit(request)  # 2
        request = await self._retrieve(request, namespace)  # 5
        lookup = self._lookup(request, caller, namespace)
        if entry := await self._exact(lookup):  # 3
            return self._replay(request, caller, entry, "exact", 1.0)
        if hit := await self._semantic(lookup):  # 4
            return self._replay(request, caller, hit.entry, "semantic", hit.similarity)
        # 6: the engine renders and tokenizes; 7:
        ranked = self.policy.rank(self.directory.replicas)
        answer = await self._send(request, caller, namespace, ranked)  # 8
        return await self._relay(request, caller, lookup, answer)  # 8, 9

    # 2

    def _admit(self, request: Generation) -> None:
        if request.model != self.config.llm.model.name:
            raise NotFoundError("The model does not exist, or it is not one that answers here.", param="model", code="model_not_found")
        limit = min((replica.max_model_len for replica in self.directory.replicas), default=None)
        if limit and request.max_tokens and request.max_tokens > limit:
            field = "max_completion_tokens" if "max_completion_tokens" in request.body else "max_tokens"
            raise InvalidRequestError(f"{field} must be at most {limit}, the model's context length.", param=field, code="invalid_value")
        if refused := {"kv_transfer_params", "ec_transfer_params"} & request.body.keys():
            raise InvalidRequestError("This field is not accepted here.", param=min(refused), code="unsupported_parameter")

    # 5

    async def _retrieve(self, request: Generation, namespace: str) -> Generation:
        if request.retrieval is None:
            return request
        if self.retrieval is None:
            raise InvalidRequestError("Retrieval is turned off here.", param="retrieval")
        messages = request.body["messages"]
        asked = request.retrieval
        limit = self.config.retrieval.max_top_k
        if asked.top_k > limit:
            raise InvalidRequestError(f"retrieval.top_k must be at most {limit}.", param="retrieval.top_k", code="invalid_value")
        hits = await self.retrieval.search(namespace, asked.vector_store_ids, last_question(messages), asked.top_k)
        return replace(request, body={**request.body, "messages": assemble(messages, hits)})

    # 3

    def _lookup(self, request: Generation, caller: Caller, namespace: str) -> Lookup:
        mode, config = request.cache.mode, self.config.cache
        lookup = Lookup(
            namespace=namespace,
            key=exact_key(namespace, request.kind, key_material(request)),
            read=config.exact.enabled and mode in ("on", "exact") and not (caller.no_cache or caller.no_store),
            write=config.exact.enabled and mode != "off" and not caller.no_store,
            semantic=config.semantic.enabled and mode in ("on", "refresh"),
            ttl_s=min(request.cache.ttl_s or config.ttl_s, config.ttl_s),
        )
        asked = question_of(request, config.semantic.max_text_chars) if lookup.semantic else None
        if asked:
            lookup.text = asked.text
            # Vectors of two encoders must never be compared, so the encoder is part of the partition.
            lookup.fingerprint = fingerprint({**asked.rest, "mygo_encoder": self.config.embedding.source})
        return lookup

    async def _exact(self, lookup: Lookup) -> Entry | None:
        if not lookup.read:
            self.metrics.cache("exact", "bypass")
            return None
        if entry := self.lru.get(lookup.namespace, lookup.key):
            self.metrics.cache("exact", "hit")
            return entry
        entry = await self._or_miss("exact", self.cache.find_exact(lookup.namespace, lookup.key))
        if entry:
            self.lru.put(entry)
        self.metrics.cache("exact", "hit" if entry else "miss")
        return entry

    # 4

    async def _semantic(self, lookup: Lookup) -> SemanticHit | None:
        if lookup.text is None or not (lookup.read or lookup.write):
            self.metrics.cache("semantic", "ineligible")
            return None
        embedded = await self._or_miss("semantic", self.embedding.embed_one(lookup.text))
        if embedded is None:
            return None
        lookup.vector = embedded.vector
        if not lookup.read:
            return None
        found = await self._or_miss("semantic", self.cache.search(lookup.namespace, lookup.fingerprint, embedded.vector))
        if isinstance(found, SemanticHit):
            self.metrics.cache("semantic", "hit")
            return found
        if found:
            self.metrics.cache("semantic", found.reason)
        return None

    async def _or_miss(self, tier: str, lookup: Awaitable[T]) -> T | None:
        """Caches fail open to the engine: an error or a late answer is a miss, counted with its reason."""
        try:
            async with asyncio.timeout(CACHE_TIMEOUT_S):
                return await lookup
        except Exception as error:  # a handle raises errors of many types; cancellation is none of them
            log.warning("cache lookup failed", extra={"tier": tier, "error": type(error).__name__})
            self.metrics.cache(tier, "timeout" if isinstance(error, TimeoutError) else "error")
            return None

    def _replay(self, request: Generation, caller: Caller, entry: Entry, tier: str, similarity: float) -> Reply:
        answer = msgspec.json.decode(entry.answer)
        created, response_id = int(self.clock()), _response_id(request, caller)
        headers = {"x-mygo-cache": tier, "x-mygo-similarity": f"{similarity:.4f}", "x-mygo-entry": entry.id}
        if request.stream:
            return Reply(200, headers, SSE_TYPE, answers.to_stream(answer, response_id, created, request.include_usage))
        return Reply(200, headers, JSON_TYPE, answers.to_json(answer, response_id, created))

    # 8

    async def _send(self, request: Generation, caller: Caller, namespace: str, ranked: list[Replica]) -> Answer:
        call = Call(
            "POST",
            request.path,
            {"content-type": JSON_TYPE, "x-request-id": caller.request_id},
            msgspec.json.encode(_engine_body(request, namespace)),
        )
        answer = await self.client.send(call, ranked)
        if answer.status >= 400:
            raise await self._engine_error(request, answer, ranked)
        return answer

    async def _engine_error(self, request: Generation, answer: Answer, ranked: list[Replica]) -> ApiError:
        raw = await read_answer(answer, MAX_ERROR_BYTES)
        error = engine_errors.from_engine(answer.status, raw, request.prompt_field)
        if isinstance(error, engine_errors.ContextLengthError):
            return await self._exact_length(request, error, ranked)
        return error

    async def _exact_length(self, request: Generation, error: engine_errors.ContextLengthError, ranked: list[Replica]) -> ApiError:
        """Engines stop counting where a prompt gets too long; its writer wants to know by how much."""
        body = {key: request.body[key] for key in ("model", request.prompt_field)}
        call = Call("POST", "/tokenize", {"content-type": JSON_TYPE}, msgspec.json.encode(body))
        try:
            raw = await read_answer(await self.client.send(call, ranked))
            return error.with_length(msgspec.json.decode(raw, type=_Tokenized).count)
        except (DeploymentError, msgspec.DecodeError):  # the prompt is too long, however long it is
            return error

    async def _relay(self, request: Generation, caller: Caller, lookup: Lookup, answer: Answer) -> Reply:
        headers = {"x-mygo-cache": "miss" if lookup.read else "bypass", "x-mygo-replica": answer.replica}
        if request.stream:
            return Reply(200, headers, SSE_TYPE, self._stream(request, lookup, answer), answer.close)
        raw = await read_answer(answer)
        self._keep(request, lookup, answers.from_json(raw))
        return Reply(200, headers, JSON_TYPE, raw)

    async def _stream(self, request: Generation, lookup: Lookup, answer: Answer) -> AsyncIterator[bytes]:
        """The replica's bytes as they come; what is kept is read from a copy, once the last one is there."""
        copy = sse.StreamCopy(self.config.cache.max_answer_bytes if lookup.write else 0)
        usage = None if request.include_usage else sse.UsageFilter()
        try:
            async for chunk in answer.chunks():
                if copy.feed(chunk):
                    self._keep(request, lookup, answers.from_stream(copy.raw))
                if data := usage.feed(chunk) if usage else chunk:
                    yield data
        except ReplicaLostError as error:
            log.warning("replica lost in the middle of a stream", extra={"replica": answer.replica})
            yield sse.END + sse.event(to_api_error(error).body())
        finally:
            await answer.close()

    # 9

    def _keep(self, request: Generation, lookup: Lookup, answer: dict[str, Any] | None) -> None:
        """Into the LRU now, so that the next request finds it; into the store off the reply's path."""
        if not lookup.write or answer is None:
            return
        now = self.clock()
        entry = Entry(
            id=uuid.uuid4().hex,
            namespace=lookup.namespace,
            exact_key=lookup.key,
            fingerprint=lookup.fingerprint,
            model=request.model,
            text=lookup.text,
            answer=msgspec.json.encode(answer),
            created_at=now,
            expires_at=now + lookup.ttl_s,
            vector=lookup.vector,
        )
        if len(entry.answer) <= self.config.cache.max_answer_bytes:
            self.lru.put(entry)
            self.keeper.keep(entry)


def _engine_body(request: Generation, namespace: str) -> dict[str, Any]:
    """What the engine gets: the tenant's salt keeps its KV apart, and the usage is always asked for."""
    body = {key: value for key, value in request.body.items() if key not in ("cache", "retrieval", "request_id", "priority")}
    salt = body.get("cache_salt")
    body["cache_salt"] = namespace if salt is None else hashlib.sha256(f"{namespace}/{salt}".encode()).hexdigest()
    if request.stream:
        body["stream_options"] = {**body.get("stream_options", {}), "include_usage": True}
    return body


def _response_id(request: Generation, caller: Caller) -> str:
    return f"{'chatcmpl' if request.kind == 'chat' else 'cmpl'}-{caller.request_id}"


async def read_answer(answer: Answer, limit: int | None = None) -> bytes:
    """The body, or its first `limit` bytes."""
    data = bytearray()
    try:
        async for chunk in answer.chunks():
            data += chunk
            if limit and len(data) > limit:
                break
    finally:
        await answer.close()
    return bytes(data)
