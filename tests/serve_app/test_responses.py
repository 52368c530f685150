"""`/v1/responses` over HTTP, with fakes behind it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from deployments.errors import ReplicaLostError
from serve_app.openai.response_fields import complete
from serve_app.openai.sse import END
from tests.serve_app.clients import client_of, error_of
from tests.serve_app.fakes import CONTEXT, MODEL, TEXT, FakeAnswer, World, make_world
from tests.serve_app.formats import response, response_events, values_of

ASKED: dict[str, Any] = {"model": MODEL, "input": "What is a cache?"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world(limits={"tokens_per_minute": 1000})
    yield world
    await world.keeper.stop()


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as http:
        yield http


async def test_a_response_is_the_engines(http: httpx.AsyncClient, world: World) -> None:
    world.replicas.script += [FakeAnswer([response(TEXT)])] * 2
    for outcome, fields in (("miss", {}), ("bypass", {"cache": {"mode": "off"}})):
        answer = await http.post("/v1/responses", json={**ASKED, **fields})
        told = answer.json()
        assert (answer.status_code, told) == (200, complete(msgspec.json.decode(response(TEXT)), ASKED, told["completed_at"]))
        assert (answer.headers["x-mygo-cache"], answer.headers["x-mygo-replica"]) == (outcome, "r1")
    assert [call.path for call in world.replicas.calls] == ["/v1/responses"] * 2


async def test_a_stream_is_the_engines_and_its_usage_is_counted(http: httpx.AsyncClient, world: World) -> None:
    world.replicas.script.append(FakeAnswer(response_events(TEXT)))
    answer = await http.post("/v1/responses", json={**ASKED, "stream": True})
    fresh = response_events(TEXT)
    told = answer.content.split(END)[:-1]
    assert [msgspec.json.decode(each.partition(b"data: ")[2])["sequence_number"] for each in told] == list(range(len(fresh)))
    deltas = [each for each in fresh if b".delta" in each]
    assert [each + END for each in told if b".delta" in each] == deltas
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "stream_options" not in world.replicas.bodies[0]
    world.replicas.script.append(FakeAnswer([response(TEXT)]))
    left = (await http.post("/v1/responses", json={**ASKED, "top_p": 1})).headers["x-ratelimit-remaining-tokens"]
    assert int(left) < 1000 - 9  # 5 and 4 tokens of the first one, and what is expected of this one


@pytest.mark.parametrize("fields", [{}, {"store": True}, {"store": None}, {"cache_salt": "x", "request_id": "mine", "priority": 3}])
async def test_engines_store_nothing_and_keep_tenants_apart(http: httpx.AsyncClient, world: World, fields: dict[str, Any]) -> None:
    for tenant in ("a", "b"):
        world.replicas.script.append(FakeAnswer([response(TEXT)]))
        await http.post("/v1/responses", json={**ASKED, **fields}, headers={"x-mygo-tenant": tenant})
    sent = world.replicas.bodies
    assert all(body.keys() == {"model", "input", "store", "cache_salt"} and body["store"] is False for body in sent)
    assert sent[0]["cache_salt"] != sent[1]["cache_salt"]
    assert "x" not in {body["cache_salt"] for body in sent}


async def test_what_the_model_has_said_as_text_goes_back_without_what_vllm_does_not_take_beside_it(
    http: httpx.AsyncClient, world: World
) -> None:
    said = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": "It is a tea."}
    asked = [{"role": "user", "content": "Tea?"}, said, {"role": "user", "content": "How hot?"}]
    await http.post("/v1/responses", json={"model": MODEL, "input": asked})
    assert world.replicas.bodies[-1]["input"][1] == {"type": "message", "role": "assistant", "content": "It is a tea."}


async def test_what_the_model_has_said_goes_back_in_one_piece(http: httpx.AsyncClient, world: World) -> None:
    """vLLM reads the first part of it only."""
    parts = [{"type": "output_text", "text": "One. ", "annotations": []}, {"type": "refusal", "refusal": "Two."}]
    said = {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": parts}
    items = [{"role": "user", "content": parts}, said, {**said, "content": []}, {**said, "status": "incomplete"}, {**said, "content": [1]}]
    world.replicas.script.append(FakeAnswer([response(TEXT)]))
    await http.post("/v1/responses", json={**ASKED, "input": items})
    joined = [{"type": "message", "role": "assistant", "content": text} for text in ("One. Two.", "")]
    assert world.replicas.bodies[0]["input"] == [items[0], *joined, *items[3:]]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"input": [{"role": "user", "content": "x"}, {"type": "item_reference", "id": "msg_1"}]}, "input[1]"),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "tools[1].type"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"retrieval": {"vector_store_ids": ["vs_1"]}}, "retrieval"),
        ({"previous_input_messages": [{"role": "user", "content": "x"}]}, "previous_input_messages"),
        ({"enable_response_messages": True}, "enable_response_messages"),
        ({"kv_transfer_params": {"prompt_token_ids": [1]}}, "kv_transfer_params"),
        ({"max_output_tokens": CONTEXT + 1}, "max_output_tokens"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"service_tier": "first"}, "service_tier"),
        ({"safety_identifier": 7}, "safety_identifier"),
        ({"prompt_cache_key": ["a"]}, "prompt_cache_key"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
    ],
)
async def test_what_cannot_be_done_is_refused(http: httpx.AsyncClient, world: World, fields: dict[str, Any], param: str) -> None:
    answer = await http.post("/v1/responses", json={**ASKED, **fields})
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)
    assert world.steps == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")],
)
async def test_nothing_is_there_later(http: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, f"/v1/responses/resp_1{path}")
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "response_not_stored"


async def test_an_engines_error_names_the_field(http: httpx.AsyncClient, world: World) -> None:
    too_long = b'{"error":{"message":"This model\'s maximum context length is 100 tokens. However, your prompt contains 120 input tokens"}}'
    world.replicas.script.append(FakeAnswer([too_long], status=400))
    error = error_of(await http.post("/v1/responses", json=ASKED))
    assert (error["param"], error["code"]) == ("input", "context_length_exceeded")
    assert len(world.replicas.calls) == 1


async def test_a_stream_that_breaks_off_says_so(http: httpx.AsyncClient, world: World) -> None:
    events = response_events(TEXT)[:6]
    world.replicas.script.append(FakeAnswer([*events, ReplicaLostError("gone")]))
    *_, last = values_of((await http.post("/v1/responses", json={**ASKED, "stream": True})).content)
    assert (last["type"], last["code"], last["sequence_number"]) == ("error", "replica_lost", 6)
