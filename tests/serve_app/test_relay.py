"""What an engine gets, and what becomes of its answers and errors."""

import asyncio
import hashlib
import json
from typing import Any

import msgspec
import pytest

from deployments.errors import NoReplicaError, ReplicaLostError
from serve_app import relay
from serve_app.errors import InvalidRequestError, UpstreamError
from serve_app.openai import sse
from tests.serve_app.asking import ask, bytes_of, caller, chat, completion
from tests.serve_app.fakes import CANARY, MODEL, TEXT, FakeAnswer, World, new_text, streamed

TOO_LONG = "This model's maximum context length is 100 tokens. However, your prompt contains at least 101 input tokens, which exceeds this"


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


async def test_several_answers_at_temperature_0_are_asked_for_as_vllm_takes_it(world: World) -> None:
    await ask(world, chat(n=2, temperature=0))
    await ask(world, chat("another", n=1, temperature=0))
    sent = [(body["n"], body["temperature"], body.get("top_k")) for body in world.replicas.bodies]
    assert sent == [(2, 1.0, 1), (1, 0, None)]


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


async def test_bytes_that_are_no_text_are_passed_on_and_not_kept(world: World) -> None:
    broken = [b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n', b"data: [DONE]\n\n"]
    world.replicas.script.append(FakeAnswer(broken))
    reply = await world.pipeline.generate(chat(stream=True), caller())
    assert await bytes_of(reply) == b"".join(broken)
    await world.keeper.drain()
    assert world.cache.entries == []
