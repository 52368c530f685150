"""The life of a request, with fakes for everything around the pipeline."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from cache.entry import Vector
from deployments.embedding import Embedded
from deployments.errors import NoReplicaError, ReplicaLostError
from deployments.replicas import Replica
from retrieval.errors import UnknownStoreError
from serve_app import relay, tiers
from serve_app.errors import ApiError, InvalidRequestError, NotFoundError, UpstreamError, to_api_error
from serve_app.openai import sse
from serve_app.openai.requests import Generation, parse_chat, parse_completion
from serve_app.replies import Reply
from serve_app.services import SemanticHit
from serve_app.tenants import Caller
from tests.serve_app import fakes
from tests.serve_app.fakes import CONTEXT, MODEL, NOW, TEXT, USAGE, FakeAnswer, World, make_world, new_text, streamed, whole

CANARY = "canary_7f3a9"
TOO_LONG = "This model's maximum context length is 100 tokens. However, your prompt contains at least 101 input tokens, which exceeds this"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world()
    yield world
    await world.keeper.stop()


def chat(text: str = "What is a cache?", **fields: Any) -> Generation:
    return parse_chat(json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}).encode())


def completion(prompt: str = "A cache is", **fields: Any) -> Generation:
    return parse_completion(json.dumps({"model": MODEL, "prompt": prompt, **fields}).encode())


def caller(tenant: str | None = None, **directives: bool) -> Caller:
    return Caller("r-1", tenant, **directives)


async def bytes_of(reply: Reply) -> bytes:
    if isinstance(reply.body, bytes):
        return reply.body
    return b"".join([chunk async for chunk in reply.body])


async def ask(world: World, request: Generation, who: Caller | None = None) -> tuple[str, bytes]:
    """The `x-mygo-cache` header and the body, once everything that is to be kept has been written."""
    reply = await world.pipeline.generate(request, who or caller())
    assert reply.status == 200
    body = await bytes_of(reply)
    await world.keeper.drain()
    return reply.headers["x-mygo-cache"], body


def text_of(body: bytes) -> str:
    """What an answer says, be it whole or a stream."""
    if body.startswith(b"{"):
        choice = msgspec.json.decode(body)["choices"][0]
        return str(choice["message"]["content"] if "message" in choice else choice["text"])
    chunks = [msgspec.json.decode(payload) for payload in sse.payloads(body) if payload != b"[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    return "".join(choice["delta"].get("content", "") if "delta" in choice else choice["text"] for choice in choices)


# The order of the steps


async def test_a_miss_passes_every_tier_before_the_engine(world: World) -> None:
    assert await ask(world, chat()) == ("miss", whole(TEXT))
    assert world.steps == ["exact", "embed", "search", "engine"]


async def test_documents_come_before_the_key(world: World) -> None:
    await ask(world, chat(retrieval={"vector_store_ids": ["vs_1"]}))
    assert world.steps == ["retrieve", "exact", "engine"]


async def test_text_completions_have_the_exact_tier_only(world: World) -> None:
    assert await ask(world, completion()) == ("miss", whole(TEXT, chat=False))
    assert world.steps == ["exact", "engine"]


async def test_what_was_just_answered_is_in_this_process(world: World) -> None:
    await ask(world, chat())
    world.steps.clear()
    assert (await ask(world, chat()))[0] == "exact"
    assert world.steps == []


async def test_what_another_process_kept_is_found_in_the_store_once(world: World) -> None:
    await ask(world, chat())
    world.lru.clear()
    world.steps.clear()
    assert [(await ask(world, chat()))[0] for _ in range(2)] == ["exact", "exact"]
    assert world.steps == ["exact"]


async def test_a_refused_request_reaches_nothing(world: World) -> None:
    for bad in (chat(model="other"), chat(max_tokens=CONTEXT + 1), chat(kv_transfer_params={"x": 1})):
        with pytest.raises(ApiError):
            await world.pipeline.generate(bad, caller())
    with pytest.raises(InvalidRequestError):
        await world.pipeline.generate(chat(), caller("no tenant's name"))
    assert world.steps == []


# Admission


async def test_an_unknown_model_is_not_repeated(world: World) -> None:
    with pytest.raises(NotFoundError) as caught:
        await world.pipeline.generate(chat(model=CANARY), caller())
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    assert CANARY not in caught.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": CONTEXT + 1}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_completion_tokens": CONTEXT + 1}, "max_completion_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": CONTEXT + 1}, "max_completion_tokens"),
    ],
)
async def test_an_answer_longer_than_the_context_is_refused(world: World, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await world.pipeline.generate(chat(**fields), caller())
    assert caught.value.param == param
    assert str(CONTEXT) in caught.value.message


async def test_an_answer_as_long_as_the_context_is_the_engines_to_judge(world: World) -> None:
    await ask(world, chat(max_tokens=CONTEXT))
    world.directory.replace([])
    await ask(world, chat(max_tokens=CONTEXT + 1))
    assert [body["max_tokens"] for body in world.replicas.bodies] == [CONTEXT, CONTEXT + 1]


async def test_the_shortest_context_of_the_replicas_counts(world: World) -> None:
    world.directory.replace([Replica("a", "http://a", 50, 16), Replica("b", "http://b", 40, 16)])
    with pytest.raises(InvalidRequestError, match="at most 40"):
        await world.pipeline.generate(chat(max_tokens=41), caller())


@pytest.mark.parametrize("field", ["kv_transfer_params", "ec_transfer_params"])
async def test_internal_fields_are_refused(world: World, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await world.pipeline.generate(chat("x", **{field: {CANARY: 1}}), caller())
    assert (caught.value.param, caught.value.code) == (field, "unsupported_parameter")


async def test_a_number_too_long_for_a_key_is_the_clients_error(world: World) -> None:
    with pytest.raises(Exception, match="integer") as caught:
        await world.pipeline.generate(chat(an_engine_field=10**1000), caller())
    assert to_api_error(caught.value).status == 400


# Hits


@pytest.mark.parametrize("first_stream", [False, True])
@pytest.mark.parametrize("then_stream", [False, True])
@pytest.mark.parametrize("make", [chat, completion])
async def test_a_hit_says_what_the_miss_said(world: World, make: Any, first_stream: bool, then_stream: bool) -> None:
    missed, fresh = await ask(world, make(stream=first_stream))
    hit, replayed = await ask(world, make(stream=then_stream))
    assert (missed, hit) == ("miss", "exact")
    assert text_of(replayed) == text_of(fresh) == TEXT
    assert replayed.endswith(sse.DONE) == then_stream


async def test_a_hit_looks_like_an_answer_of_now(world: World) -> None:
    await ask(world, chat())
    world.clock.now += 60
    reply = await world.pipeline.generate(chat(), Caller("r-2", None))
    answer = msgspec.json.decode(await bytes_of(reply))
    assert (answer["id"], answer["created"], answer["usage"]) == ("chatcmpl-r-2", int(NOW) + 60, USAGE)
    assert reply.media_type == "application/json"
    assert reply.headers == {"x-mygo-cache": "exact", "x-mygo-similarity": "1.0000", "x-mygo-entry": world.cache.entries[0].id}


async def test_a_replayed_stream_has_usage_only_if_asked(world: World) -> None:
    await ask(world, chat(stream=True))
    _, without = await ask(world, chat(stream=True))
    _, with_usage = await ask(world, chat(stream=True, stream_options={"include_usage": True}))
    assert b"usage" not in without
    assert msgspec.json.decode(list(sse.payloads(with_usage))[-2]) | {"usage": USAGE, "choices": []} == msgspec.json.decode(
        list(sse.payloads(with_usage))[-2]
    )


async def test_a_paraphrase_is_a_semantic_hit(world: World) -> None:
    world.embedding.means["Explain caches."] = "What is a cache?"
    await ask(world, chat())
    reply = await world.pipeline.generate(chat("Explain caches."), caller())
    assert (reply.headers["x-mygo-cache"], reply.headers["x-mygo-similarity"]) == ("semantic", "0.9700")
    assert text_of(await bytes_of(reply)) == TEXT
    assert world.steps[-3:] == ["exact", "embed", "search"]
    assert world.metrics.lookups[-2:] == [("exact", "miss"), ("semantic", "hit")]


async def test_a_paraphrase_with_other_parameters_is_a_miss(world: World) -> None:
    world.embedding.means["Explain caches."] = "What is a cache?"
    await ask(world, chat())
    assert (await ask(world, chat("Explain caches.", temperature=0)))[0] == "miss"


async def test_another_model_under_the_same_name_has_answers_of_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await ask(world, chat())
    monkeypatch.setattr(fakes, "MODEL_IDENTITY", "m after an update")
    updated = make_world()
    updated.cache.entries += world.cache.entries
    updated.embedding.means["Explain caches."] = "What is a cache?"
    assert (await ask(updated, chat()))[0] == "miss"
    assert (await ask(updated, chat("Explain caches."), caller()))[0] == "semantic"
    assert updated.cache.entries[-1].fingerprint != world.cache.entries[0].fingerprint
    await updated.keeper.stop()


async def test_the_semantic_tier_works_without_the_exact_one() -> None:
    world = make_world(cache={"exact": {"enabled": False}})
    world.embedding.means["Explain caches."] = "What is a cache?"
    assert [(await ask(world, chat(text)))[0] for text in ("What is a cache?", "What is a cache?", "Explain caches.")] == [
        "miss",
        "semantic",
        "semantic",
    ]
    assert len(world.lru) == 0
    await world.keeper.stop()


async def test_what_a_kept_answer_does_not_hold_is_computed(world: World) -> None:
    await ask(world, chat())
    asked = chat(prompt_logprobs=1)
    assert [(await ask(world, asked))[0], (await ask(world, asked))[0]] == ["bypass", "bypass"]
    assert len(world.cache.entries) == 1


async def test_an_answer_that_is_not_understood_reaches_the_client(world: World) -> None:
    strange = b'{"choices": 7, "usage": {}}'
    world.replicas.script.append(FakeAnswer([strange]))
    assert await ask(world, chat()) == ("miss", strange)
    assert world.metrics.skipped == ["not_understood"]


async def test_texts_that_the_encoder_does_not_tell_apart_are_not_equal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def search(namespace: str, fingerprint: str, vector: Vector) -> SemanticHit:
        return SemanticHit(world.cache.entries[0], 1.0)

    await ask(world, chat("Where is the US?"))
    monkeypatch.setattr(world.cache, "search", search)
    assert (await ask(world, chat("Where is the us?")))[0] == "miss"
    assert ("semantic", "indistinct") in world.metrics.lookups


async def test_a_text_that_the_encoder_did_not_see_whole_is_neither_found_nor_finds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def embed_one(text: str) -> Embedded:
        return Embedded(np.ones(8, np.float32), 9000, covered=False)

    monkeypatch.setattr(world.embedding, "embed_one", embed_one)
    await ask(world, chat("A long text, then this."))
    assert world.cache.entries[0].vector is None
    assert (await ask(world, chat("A long text, then that.")))[0] == "miss"
    assert world.metrics.lookups.count(("semantic", "not_covered")) == 2


async def test_an_answer_that_was_damaged_in_the_store_is_a_miss(world: World) -> None:
    await ask(world, chat())
    world.lru.clear()
    world.cache.entries[0] = replace(world.cache.entries[0], answer=b"{")
    assert await ask(world, chat()) == ("miss", whole(TEXT))
    assert ("exact", "damaged") in world.metrics.lookups


# Tenants


async def test_tenants_do_not_share_answers(world: World) -> None:
    world.embedding.means["Explain caches."] = "What is a cache?"
    assert (await ask(world, chat(), caller("a")))[0] == "miss"
    assert (await ask(world, chat(), caller("b")))[0] == "miss"
    assert (await ask(world, chat("Explain caches."), caller("c")))[0] == "miss"
    assert (await ask(world, chat(), caller("a")))[0] == "exact"
    world.lru.clear()
    assert (await ask(world, chat("Explain caches."), caller("b")))[0] == "semantic"
    assert len({entry.namespace for entry in world.cache.entries}) == 3


async def test_no_part_sees_a_tenants_name(world: World) -> None:
    await ask(world, chat(retrieval={"vector_store_ids": ["vs_1"]}), caller(CANARY))
    assert CANARY not in str(world.retrieval.calls) + str(world.replicas.calls) + str(world.cache.entries)


async def test_tenants_do_not_share_kv(world: World) -> None:
    async def salt_of(who: str, **fields: Any) -> str:
        await ask(world, chat(new_text(), **fields), caller(who))
        return str(world.replicas.bodies[-1]["cache_salt"])

    a, b = await salt_of("a"), await salt_of("b")
    own_a, own_b = await salt_of("a", cache_salt="mine"), await salt_of("b", cache_salt="mine")
    forged = await salt_of("b", cache_salt=a)
    assert len({a, b, own_a, own_b, forged, "mine"}) == 6
    assert await salt_of("a") == a
    assert await salt_of("a", cache_salt="mine") == own_a == hashlib.sha256(f"{a}/mine".encode()).hexdigest()


# What the engine gets


async def test_the_engine_gets_the_clients_fields_without_ours(world: World) -> None:
    fields: dict[str, Any] = {"temperature": 0.5, "an_engine_field": {"x": None}, "stop": None}
    ours: dict[str, Any] = {"cache": {"mode": "on"}, "request_id": "x", "priority": 5, "retrieval": {"vector_store_ids": ["vs"]}}
    world.retrieval.texts.clear()
    await ask(world, chat("What is a cache?", **fields, **ours))
    (call,) = world.replicas.calls
    assert (call.method, call.path, call.headers["x-request-id"]) == ("POST", "/v1/chat/completions", "r-1")
    body = world.replicas.bodies[0]
    assert body.pop("cache_salt")
    messages = [{"role": "user", "content": "What is a cache?"}]
    assert body == {"model": MODEL, "messages": messages, "temperature": 0.5, "an_engine_field": {"x": None}}


async def test_the_usage_of_a_stream_is_always_asked_for(world: World) -> None:
    await ask(world, chat(stream=True))
    await ask(world, chat("another", stream=True, stream_options={"include_usage": False, "continuous_usage_stats": True}))
    asked = [body["stream_options"] for body in world.replicas.bodies]
    assert asked == [{"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True}]


async def test_a_stream_without_usage_lacks_only_that_event(world: World) -> None:
    events = streamed(TEXT)
    _, body = await ask(world, chat(stream=True))
    assert body == b"".join(event for event in events if b'"choices":[]' not in event)


async def test_a_stream_with_usage_is_relayed_byte_for_byte(world: World) -> None:
    _, body = await ask(world, chat(stream=True, stream_options={"include_usage": True}))
    assert body == b"".join(streamed(TEXT))


async def test_a_miss_names_its_replica(world: World) -> None:
    reply = await world.pipeline.generate(chat(), caller())
    assert reply.headers == {"x-mygo-cache": "miss", "x-mygo-replica": "r1"}


# What the client says about caching


@pytest.mark.parametrize(
    ("mode", "second", "kept", "tiers"),
    [
        ("on", "exact", 1, ["exact", "embed", "search"]),
        ("exact", "exact", 1, ["exact"]),
        ("refresh", "bypass", 2, ["embed"]),
        ("off", "bypass", 0, []),
    ],
)
async def test_cache_modes(world: World, mode: str, second: str, kept: int, tiers: list[str]) -> None:
    request = chat(cache={"mode": mode})
    await ask(world, request)
    assert world.steps == [*tiers, "engine"]
    assert (await ask(world, request))[0] == second
    assert len(world.cache.entries) == kept


async def test_refresh_replaces_what_others_get(world: World) -> None:
    await ask(world, chat())
    world.replicas.script.append(FakeAnswer([whole("News.")]))
    await ask(world, chat(cache={"mode": "refresh"}))
    assert text_of((await ask(world, chat()))[1]) == "News."


async def test_no_cache_asks_anew_and_keeps(world: World) -> None:
    await ask(world, chat())
    assert (await ask(world, chat(), caller(no_cache=True)))[0] == "bypass"
    assert len(world.cache.entries) == 2


async def test_no_store_neither_reads_nor_keeps(world: World) -> None:
    await ask(world, chat())
    world.steps.clear()
    assert (await ask(world, chat(), caller(no_store=True)))[0] == "bypass"
    assert world.steps == ["engine"]
    assert len(world.cache.entries) == 1


@pytest.mark.parametrize(("asked", "kept_for"), [({}, 100), ({"ttl_s": 5}, 5), ({"ttl_s": 500}, 100)])
async def test_the_shorter_time_to_live_counts(asked: dict[str, Any], kept_for: float) -> None:
    world = make_world(cache={"ttl_s": 100})
    await ask(world, chat(cache=asked))
    world.clock.now = NOW + kept_for - 1
    assert (await ask(world, chat()))[0] == "exact"
    world.clock.now = NOW + kept_for
    assert (await ask(world, chat()))[0] == "miss"
    await world.keeper.stop()


# Broken caches


@pytest.mark.parametrize(("hangs", "outcome"), [(False, "error"), (True, "timeout")])
@pytest.mark.parametrize("part", ["finds", "searches", "embedding"])
async def test_a_broken_cache_does_not_stop_an_answer(
    world: World, monkeypatch: pytest.MonkeyPatch, part: str, hangs: bool, outcome: str
) -> None:
    monkeypatch.setattr(tiers, "LOOKUP_TIMEOUT_S", 0.01)
    fault = world.embedding.fault if part == "embedding" else getattr(world.cache, part)
    fault.hangs, fault.error = hangs, RuntimeError(CANARY)
    assert await ask(world, chat()) == ("miss", whole(TEXT))
    tier = "exact" if part == "finds" else "semantic"
    assert [each for lookup_tier, each in world.metrics.lookups if lookup_tier == tier] == [outcome]
    assert (await ask(world, chat()))[0] == "exact"


async def test_a_store_that_cannot_write_does_not_stop_an_answer(world: World) -> None:
    world.cache.writes.error = RuntimeError(CANARY)
    assert (await ask(world, chat()))[0] == "miss"
    assert (await ask(world, chat()))[0] == "exact"
    assert world.metrics.skipped == ["store_error"]


async def test_a_question_that_could_not_be_embedded_is_kept_without_its_vector(world: World) -> None:
    world.embedding.fault.error = RuntimeError()
    await ask(world, chat())
    assert world.cache.entries[0].vector is None


# What is kept


async def test_what_is_kept(world: World) -> None:
    await ask(world, chat(stream=True))
    (entry,) = world.cache.entries
    assert (entry.model, entry.text, entry.created_at) == (MODEL, "What is a cache?", NOW)
    assert entry.vector is not None
    answer = msgspec.json.decode(entry.answer)
    assert not {"id", "created", "prompt_logprobs"} & set(answer)
    assert (answer["choices"][0]["message"]["content"], answer["usage"]) == (TEXT, USAGE)


NOT_KEPT = {
    "broken off": streamed(TEXT, done=False),
    "an error": [streamed(TEXT)[0], sse.event({"error": {"message": "x"}}), sse.DONE],
    "no finish reason": [*streamed(TEXT)[:2], sse.event({"choices": [], "usage": USAGE}), sse.DONE],
    "no usage": [*streamed(TEXT, done=False)[:-1], sse.DONE],
}


@pytest.mark.parametrize("pieces", NOT_KEPT.values(), ids=NOT_KEPT.keys())
async def test_an_incomplete_stream_is_not_kept(world: World, pieces: list[bytes]) -> None:
    world.replicas.script.append(FakeAnswer(pieces))
    await ask(world, chat(stream=True))
    assert world.cache.entries == []
    assert (await ask(world, chat()))[0] == "miss"


@pytest.mark.parametrize("body", [whole(TEXT, finish_reason=None), whole(TEXT, finish_reason="abort"), b"{", b"[]"])
async def test_an_incomplete_answer_is_relayed_and_not_kept(world: World, body: bytes) -> None:
    world.replicas.script.append(FakeAnswer([body]))
    assert await ask(world, chat()) == ("miss", body)
    assert world.cache.entries == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_over_the_limit_is_not_kept(stream: bool) -> None:
    world = make_world(cache={"max_answer_bytes": 2000})
    long = "word " * 1000
    world.replicas.script.append(FakeAnswer(streamed(long) if stream else [whole(long)]))
    _, body = await ask(world, chat(stream=stream))
    assert text_of(body) == long
    assert world.cache.entries == []
    assert stream or world.metrics.skipped == ["too_large"]
    assert len(world.lru) == 0


# Streams that end early


async def test_a_client_that_leaves_closes_the_stream_and_nothing_is_kept(world: World) -> None:
    world.replicas.script.append(FakeAnswer([*streamed(TEXT)[:2], None]))
    reply = await world.pipeline.generate(chat(stream=True), caller())
    assert not isinstance(reply.body, bytes)

    async def read() -> None:
        await bytes_of(reply)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    assert world.replicas.answers[0].closed
    assert world.cache.entries == []


async def test_an_unread_stream_is_closed_by_its_reply(world: World) -> None:
    reply = await world.pipeline.generate(chat(stream=True), caller())
    await reply.close()
    assert world.replicas.answers[0].closed
    assert world.cache.entries == []


async def test_a_stream_read_to_its_end_is_closed(world: World) -> None:
    await ask(world, chat(stream=True))
    assert world.replicas.answers[0].closed


async def test_a_whole_answer_is_closed_though_reading_it_fails(world: World) -> None:
    world.replicas.script.append(FakeAnswer([b"{", ReplicaLostError("gone")]))
    with pytest.raises(ReplicaLostError):
        await world.pipeline.generate(chat(), caller())
    assert world.replicas.answers[0].closed
    assert world.cache.entries == []


@pytest.mark.parametrize("include_usage", [False, True])
async def test_a_replica_lost_in_mid_stream_ends_it_with_an_error_event(world: World, include_usage: bool) -> None:
    first = streamed(TEXT)[0]
    world.replicas.script.append(FakeAnswer([first, streamed(TEXT)[1][:-20], ReplicaLostError(CANARY)]))
    _, body = await ask(world, chat(stream=True, stream_options={"include_usage": include_usage}))
    *_, last = [msgspec.json.decode(payload) for payload in sse.payloads(body)]  # no half event before it
    assert (last["error"]["type"], last["error"]["code"]) == ("service_unavailable", "replica_lost")
    assert body.startswith(first)
    assert CANARY.encode() not in body
    assert sse.DONE not in body
    assert world.replicas.answers[0].closed
    assert world.cache.entries == []


# The engine's errors


async def test_errors_of_the_engine_become_ours(world: World) -> None:
    refusal = json.dumps({"error": {"message": f"bad {CANARY}", "param": "tools"}}).encode()
    world.replicas.script += [FakeAnswer([refusal], 400), FakeAnswer([b"x"], 500)]
    with pytest.raises(InvalidRequestError) as refused:
        await world.pipeline.generate(chat(), caller())
    with pytest.raises(UpstreamError):
        await world.pipeline.generate(chat(stream=True), caller())
    assert refused.value.param == "tools"
    assert CANARY not in refused.value.message
    assert all(answer.closed for answer in world.replicas.answers)
    assert world.cache.entries == []


async def test_a_long_error_is_not_read_to_its_end(world: World) -> None:
    pieces: list[bytes | Exception | None] = [b"x" * relay.MAX_ERROR_BYTES, b"x", None]
    world.replicas.script.append(FakeAnswer(pieces, 500))
    with pytest.raises(UpstreamError):
        await asyncio.wait_for(world.pipeline.generate(chat(), caller()), 5)


async def test_no_replica_is_an_error_of_its_own(world: World) -> None:
    world.replicas.script.append(NoReplicaError("none"))
    with pytest.raises(NoReplicaError):
        await world.pipeline.generate(chat(), caller())


@pytest.mark.parametrize("make", [chat, completion])
async def test_a_prompt_that_is_too_long_is_counted_by_the_engine(world: World, make: Any) -> None:
    error = json.dumps({"error": {"message": TOO_LONG}}).encode()
    world.replicas.script += [FakeAnswer([error], 400), FakeAnswer([b'{"count": 345, "tokens": []}'])]
    request = make(temperature=0)
    with pytest.raises(InvalidRequestError) as caught:
        await world.pipeline.generate(request, caller())
    assert caught.value.param == request.prompt_field
    assert "maximum context length is 100 tokens" in caught.value.message
    assert "your prompt has 345 tokens" in caught.value.message
    counting = world.replicas.calls[-1]
    assert (counting.method, counting.path) == ("POST", "/tokenize")
    assert world.replicas.bodies[-1] == {"model": MODEL, request.prompt_field: request.body[request.prompt_field]}


@pytest.mark.parametrize(
    "counting",
    [
        FakeAnswer([b"no"], 500),
        FakeAnswer([b"no"], 200),
        FakeAnswer([b"{}"], 200),
        NoReplicaError("none"),
        ReplicaLostError("gone"),
        FakeAnswer([ReplicaLostError("gone")]),
    ],
    ids=["error", "no JSON", "no count", "no replica", "lost before", "lost after"],
)
async def test_a_prompt_that_cannot_be_counted_is_still_too_long(world: World, counting: FakeAnswer | Exception) -> None:
    world.replicas.script += [FakeAnswer([json.dumps({"error": {"message": TOO_LONG}}).encode()], 400), counting]
    with pytest.raises(InvalidRequestError) as caught:
        await world.pipeline.generate(chat(), caller())
    assert caught.value.code == "context_length_exceeded"


# Documents


async def test_documents_are_part_of_the_key_and_of_the_prompt(world: World) -> None:
    request = chat(retrieval={"vector_store_ids": ["vs_1", "vs_2"], "top_k": 3})
    assert (await ask(world, request))[0] == "miss"
    assert (await ask(world, request))[0] == "exact"
    world.retrieval.texts[0] = "A replica is one of several."
    assert (await ask(world, request))[0] == "miss"
    prompts = [body["messages"][0]["content"] for body in world.replicas.bodies]
    assert ["A replica is a copy." in prompts[0], "A replica is one of several." in prompts[1]] == [True, True]
    assert all(prompt.endswith("What is a cache?") for prompt in prompts)
    namespace = world.pipeline.authenticator.namespace(None)
    assert world.retrieval.calls[0] == (namespace, ["vs_1", "vs_2"], "What is a cache?", 3)


async def test_an_answer_from_documents_serves_no_other_question(world: World) -> None:
    world.embedding.means["Explain caches."] = "What is a cache?"
    await ask(world, chat(retrieval={"vector_store_ids": ["vs_1"]}))
    assert (await ask(world, chat()))[0] == "miss"
    assert (await ask(world, chat("Explain caches.", retrieval={"vector_store_ids": ["vs_1"]})))[0] == "miss"


async def test_more_documents_than_allowed_are_refused_by_the_fields_name(world: World) -> None:
    limit = world.config.retrieval.max_top_k
    with pytest.raises(InvalidRequestError, match=f"at most {limit}") as caught:
        await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"], "top_k": limit + 1}), caller())
    assert caught.value.param == "retrieval.top_k"
    assert str(limit + 1) not in caught.value.message


async def test_an_unknown_collection_is_not_hidden(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def search(*args: Any) -> None:
        raise UnknownStoreError

    monkeypatch.setattr(world.retrieval, "search", search)
    with pytest.raises(UnknownStoreError):
        await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller())


async def test_retrieval_that_is_turned_off_is_said() -> None:
    world = make_world(retrieval={"enabled": False})
    with pytest.raises(InvalidRequestError) as caught:
        await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller())
    assert caught.value.param == "retrieval"
    await ask(world, chat())
    await world.keeper.stop()


async def test_lookups_are_counted(world: World) -> None:
    await ask(world, chat())
    await ask(world, chat())
    await ask(world, chat(cache={"mode": "off"}))
    assert world.metrics.lookups == [
        ("exact", "miss"),
        ("semantic", "empty"),
        ("exact", "hit"),
        ("exact", "bypass"),
        ("semantic", "ineligible"),
    ]
