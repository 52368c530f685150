"""Sends a request to a replica's engine, and its answer to the client."""

import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from deployments.channel.patience import Patience
from deployments.errors import DeploymentError, ReplicaLostError
from deployments.rendering import DocumentChat
from deployments.replica_client import Answer, Call, ReplicaClient
from deployments.replicas import Replica
from deployments.routing import Ranking, Routing
from deployments.turns import Flow
from retrieval.prompt import blocks, insert, labels, ranking
from serve_app.errors import ApiError, to_api_error
from serve_app.openai import engine_errors, formats, sse
from serve_app.openai.kinds import WITH_CHOICES
from serve_app.openai.reference import engine_body
from serve_app.openai.requests import Generation
from serve_app.replies import JSON_TYPE, SSE_TYPE, Reply
from serve_app.tenants import Caller
from serve_app.tiers import CacheTiers, Lookup

Used = Callable[[sse.Usage], None]
Begun = Callable[[str], None]
log = logging.getLogger("ray.serve")

MAX_ERROR_BYTES = 64 * 1024
_OURS = ("cache", "retrieval", "request_id", "priority")
"""Fields that the engine does not get: the application's own, and those that are not a client's to set."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that a replica has taken: its answer, and the place that is reserved for it there until `close`."""

    answer: Answer
    ranking: Ranking
    begun: Begun | None = None
    """Is told once, when the first token has come, which replica gave it: its engine holds the prompt now."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """See `Answer.chunks`."""
        ranking: Ranking | None = self.ranking
        async for chunk in self.answer.chunks():
            if ranking:
                ranking.answered()
                ranking = None
                if self.begun:
                    self.begun(self.answer.replica)
            yield chunk

    async def close(self) -> None:
        try:
            self.ranking.end()
        finally:
            await self.answer.close()


async def send(
    client: ReplicaClient,
    routing: Routing,
    request: Generation,
    caller: Caller,
    namespace: str,
    flow: Flow,
    patience: Patience | None = None,
    begun: Begun | None = None,
) -> Sent:
    """The answer of the best replica that gives one, at its turn; `begun`: see `Sent`.

    Raises `ApiError` for the engine's errors, and `DeploymentError`.
    """
    call, salt, chat = engine_request(request, caller, namespace, patience)
    prompt = (request.prompt_characters, not request.stream, chat)
    ranking = await routing.rank(call, salt, *prompt, flow, begins_kept=request.begins_kept, adapter=request.adapter)  # 6, 7
    try:
        answer = await client.send(ranking.call, ranking.replicas, ranking.asking)
        if answer.status >= 400:
            raise await _engine_error(client, request, answer, ranking.replicas)
    except BaseException:
        ranking.end()
        raise
    return Sent(answer, ranking, begun)


def engine_request(
    request: Generation, caller: Caller, namespace: str, patience: Patience | None = None
) -> tuple[Call, str, DocumentChat | None]:
    """What the engine gets, the salt of its KV, and the same as a chat whose documents may change their order, if it is one."""
    body = _engine_body(request, namespace)
    headers = {"content-type": JSON_TYPE, "x-request-id": caller.request_id}
    call = Call("POST", request.path, headers, msgspec.json.encode(body), patience)
    return call, body["cache_salt"], _document_chat(request, call, body)


def _document_chat(request: Generation, call: Call, body: dict[str, Any]) -> DocumentChat | None:
    """None: there are no documents whose order may change."""
    retrieved = request.retrieved
    if not retrieved or not retrieved.hits or not retrieved.ranks or not request.prompt_characters:
        return None
    if request.body.get("truncate_prompt_tokens") is not None:  # of a prompt that is cut off no parts can be joined
        return None
    messages, line = retrieved.messages, ranking(retrieved.hits)

    def with_text(text: str) -> Call:
        return replace(call, body=msgspec.json.encode({**body, "messages": insert(messages, text + line)}))

    return DocumentChat(blocks(retrieved.hits), labels(retrieved.hits), retrieved.ranks, with_text, retrieved.head_start, retrieved.scope)


def _engine_body(request: Generation, namespace: str) -> dict[str, Any]:
    """What the engine gets: the tenant's salt keeps its KV apart, and the usage is always asked for."""
    body = engine_body({key: value for key, value in request.body.items() if key not in _OURS})
    salt = body.get("cache_salt")
    namespace = request.retrieved.scope if request.retrieved else namespace
    body["cache_salt"] = namespace if salt is None else hashlib.sha256(f"{namespace}/{salt}".encode()).hexdigest()
    if request.stream and request.kind in WITH_CHOICES:
        body["stream_options"] = {**body.get("stream_options", {}), "include_usage": True}
    return body


async def _engine_error(client: ReplicaClient, request: Generation, answer: Answer, ranked: list[Replica]) -> ApiError:
    raw = await read_answer(answer, MAX_ERROR_BYTES)
    error = engine_errors.from_engine(answer.status, raw, request.prompt_field)
    if isinstance(error, engine_errors.ContextLengthError):
        return await _exact_length(client, request, error, ranked)
    return error


async def _exact_length(
    client: ReplicaClient, request: Generation, error: engine_errors.ContextLengthError, ranked: list[Replica]
) -> ApiError:
    """Engines stop counting where a prompt gets too long; its writer wants to know by how much."""
    counting = formats.counting(request)
    if counting is None:
        return error
    call = Call("POST", counting.path, {"content-type": JSON_TYPE}, msgspec.json.encode(counting.body))
    try:
        raw = await read_answer(await client.send(call, ranked))
        return error.with_length(counting.tokens(raw))
    except (DeploymentError, msgspec.DecodeError):  # the prompt is too long, however long it is
        return error


async def relay(request: Generation, sent: Sent, tiers: CacheTiers, lookup: Lookup, used: Used) -> Reply:
    """The reply that carries a replica's answer; once that is complete, it is kept. `used` is told what the engine has counted."""
    headers = {**request.headers, "x-mygo-cache": "miss" if lookup.read else "bypass", "x-mygo-replica": sent.answer.replica}
    if sent.ranking.predicted is not None:
        headers["x-mygo-predicted-cached-tokens"] = str(sent.ranking.predicted)
    if sent.ranking.order is not None:
        headers["x-mygo-document-order"] = ",".join(str(hit + 1) for hit in sent.ranking.order)
    if request.stream:

        async def close() -> None:
            lookup.ticket.left()
            await sent.close()

        return Reply(200, headers, SSE_TYPE, _stream(request, sent, tiers, lookup, used), close)
    raw = await read_answer(sent)
    _compare(sent.ranking, formats.usage_of(request.kind, raw), used)
    if lookup.guard:
        raw = await lookup.guard.whole(raw)
    if completing := formats.completing_of(request):
        raw = completing.whole(raw)
    tiers.keep(lookup, formats.from_json(request.kind), raw)
    lookup.ticket.ended()
    return Reply(200, headers, JSON_TYPE, raw)


async def _stream(request: Generation, sent: Sent, tiers: CacheTiers, lookup: Lookup, used: Used) -> AsyncIterator[bytes]:
    """The replica's bytes as they come; what is kept is read from a copy, once the last one is there."""
    copy, parse = formats.copy_of(request, tiers.copy_limit(lookup)), formats.from_stream(request.kind)
    events, completing = formats.events_of(request), formats.completing_of(request)
    rules = lookup.guard.events(request) if lookup.guard else None
    judge = lookup.guard if lookup.guard and lookup.guard.judges_answers else None
    try:
        async for chunk in sent.chunks():
            if rules:
                chunk = rules.feed(chunk)
            if completing:
                chunk = completing.feed(chunk)
            is_whole = copy.feed(chunk)
            if is_whole and judge is None:
                tiers.keep(lookup, parse, copy.raw)
            if whole := events.feed(chunk):
                yield engine_errors.in_stream(whole, request.prompt_field)
            if is_whole and judge and await judge.may_keep(copy.raw, parse):
                tiers.keep(lookup, parse, copy.raw)
            if rules and rules.is_over:
                break  # the engine is left
        _compare(sent.ranking, events.usage, used)
        lookup.ticket.ended()
    except ReplicaLostError as error:
        log.warning("replica lost in the middle of a stream", extra={"replica": sent.answer.replica})
        lookup.ticket.ended()
        yield formats.broken_off(request, to_api_error(error), events)
    finally:
        lookup.ticket.left()
        await sent.close()


def _compare(ranking: Ranking, usage: sse.Usage | None, used: Used) -> None:
    """What was expected with what the engine has counted."""
    if usage:
        used(usage)
    if usage and usage.cached_tokens is not None:
        ranking.found(usage.cached_tokens, usage.prompt_tokens, usage.completion_tokens)


async def read_answer(answer: Answer | Sent, limit: int | None = None) -> bytes:
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
