"""Anthropic's routes over HTTP, with fakes behind them."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from deployments.errors import NoReplicaError, ReplicaLostError
from serve_app.anthropic.errors import body_of
from serve_app.anthropic.message_fields import CompletingMessage
from serve_app.errors import AuthenticationError, ForbiddenError, RateLimitError, TooLargeError, UpstreamError
from tests.serve_app.clients import client_of
from tests.serve_app.fakes import CONTEXT, MODEL, TEXT, FakeAnswer, World, make_world
from tests.serve_app.formats import message, message_events, values_of

ASKED: dict[str, Any] = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "What is a cache?"}]}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world(limits={"tokens_per_minute": 1000, "requests_per_minute": 100}, ingress={"max_body_bytes": 4096})
    yield world
    await world.keeper.stop()


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as http:
        yield http


def error_in(answer: httpx.Response) -> Any:
    body = answer.json()
    assert body.keys() == {"type", "error"}
    assert body["type"] == "error"
    assert body["error"].keys() == {"type", "message"}
    return body["error"]


async def test_a_message_is_the_engines(http: httpx.AsyncClient, world: World) -> None:
    world.replicas.script += [FakeAnswer([message(TEXT)])] * 2
    for outcome, fields in (("miss", {}), ("bypass", {"cache": {"mode": "off"}})):
        asked = {**ASKED, **fields}
        answer = await http.post("/v1/messages?beta=true", json=asked, headers={"x-request-id": "r-7", "anthropic-version": "2023-06-01"})
        assert (answer.status_code, answer.content) == (200, CompletingMessage().whole(message(TEXT)))
        assert (answer.headers["x-mygo-cache"], answer.headers["request-id"]) == (outcome, "r-7")
    assert [call.path for call in world.replicas.calls] == ["/v1/messages"] * 2


async def test_a_stream_is_the_engines_and_its_usage_is_counted(http: httpx.AsyncClient, world: World) -> None:
    world.replicas.script.append(FakeAnswer(message_events(TEXT)))
    answer = await http.post("/v1/messages", json={**ASKED, "stream": True})
    assert answer.content == CompletingMessage().feed(b"".join(message_events(TEXT)))
    world.replicas.script.append(FakeAnswer([message(TEXT)]))
    left = (await http.post("/v1/messages", json={**ASKED, "system": ""})).headers["x-ratelimit-remaining-tokens"]
    assert int(left) == 1000 - 9 - 14  # all tokens of the first prompt, cached ones too; 4 and 10 are expected of this one


async def test_tenants_are_kept_apart_and_what_is_ours_stays_here(http: httpx.AsyncClient, world: World) -> None:
    for tenant in ("a", "b"):
        world.replicas.script.append(FakeAnswer([message(TEXT)]))
        asked = {**ASKED, "cache": {"mode": "off"}, "priority": 1, "system": None}
        await http.post("/v1/messages", json=asked, headers={"x-mygo-tenant": tenant})
    sent = world.replicas.bodies
    assert all(body.keys() == {"model", "max_tokens", "messages", "cache_salt"} for body in sent)
    assert sent[0]["cache_salt"] != sent[1]["cache_salt"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": CONTEXT + 1}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "messages[0].content[0].type"),
        ({"system": [{"type": "server_tool_use"}]}, "system[0].type"),
        ({"temperature": 1.5}, "temperature"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"mcp_servers": [{"type": "url", "url": "http://x"}]}, "mcp_servers"),
        ({"retrieval": {"vector_store_ids": ["vs_1"]}}, "retrieval"),
        ({"kv_transfer_params": {"prompt_token_ids": [1]}}, "not accepted"),
    ],
)
async def test_what_cannot_be_done_is_refused(http: httpx.AsyncClient, world: World, fields: dict[str, Any], named: str) -> None:
    answer = await http.post("/v1/messages", json={**ASKED, **fields})
    error = error_in(answer)
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert named in error["message"]
    assert world.steps == []


async def test_errors_have_anthropics_shape_wherever_they_come_from(http: httpx.AsyncClient, world: World) -> None:
    world.replicas.script.append(NoReplicaError("none"))
    unready = await http.post("/v1/messages", json=ASKED)
    assert (unready.status_code, error_in(unready)["type"]) == (503, "overloaded_error")
    for method, path, body, status, kind in (
        ("POST", "/v1/messages", {**ASKED, "model": "claude"}, 404, "not_found_error"),
        ("POST", "/v1/messages", {**ASKED, "system": "x" * 5000}, 413, "request_too_large"),
        ("PUT", "/v1/messages", ASKED, 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", ASKED, 404, "not_found_error"),
    ):
        answer = await http.request(method, path, json=body)
        assert (answer.status_code, error_in(answer)["type"]) == (status, kind)


async def test_an_errors_request_has_an_id_where_anthropics_clients_read_it(http: httpx.AsyncClient, world: World) -> None:
    world.replicas.script.append(NoReplicaError("none"))
    for path, body in (("/v1/messages", {}), ("/v1/messages", ASKED), ("/v1/messages/count_tokens", {})):
        answer = await http.post(path, json=body, headers={"x-request-id": "r-8"})
        assert answer.status_code >= 400
        assert answer.headers["request-id"] == "r-8"


def test_each_status_has_its_type() -> None:
    errors = [
        AuthenticationError("x"),
        ForbiddenError("x"),
        TooLargeError("x"),
        RateLimitError("x", kind="tokens", retry_after_s=1),
        UpstreamError("x"),
    ]
    types = ["authentication_error", "permission_error", "request_too_large", "rate_limit_error", "api_error"]
    assert [body_of(error)["error"]["type"] for error in errors] == types


async def test_an_engines_errors_are_understood(http: httpx.AsyncClient, world: World) -> None:
    said = "This model's maximum context length is 100 tokens. However, your prompt contains at least 101 input tokens."
    long = msgspec.json.encode({"type": "error", "error": {"type": "BadRequestError", "message": said}})
    world.replicas.script += [FakeAnswer([long], status=400), FakeAnswer([b'{"input_tokens":250}'])]
    message = error_in(await http.post("/v1/messages", json=ASKED))["message"]
    assert "has 250 tokens" in message
    assert [call.path for call in world.replicas.calls] == ["/v1/messages", "/v1/messages/count_tokens"]
    assert "max_tokens" not in world.replicas.bodies[1]


async def test_a_stream_that_breaks_off_says_so(http: httpx.AsyncClient, world: World) -> None:
    world.replicas.script.append(FakeAnswer([*message_events(TEXT)[:4], ReplicaLostError("gone")]))
    *_, last = values_of((await http.post("/v1/messages", json={**ASKED, "stream": True})).content)
    assert (last["type"], last["error"]["type"]) == ("error", "overloaded_error")


async def test_tokens_are_counted(http: httpx.AsyncClient, world: World) -> None:
    world.replicas.script.append(FakeAnswer([b'{"input_tokens":7,"context_management":{"original_input_tokens":7}}']))
    asked = {key: value for key, value in ASKED.items() if key != "max_tokens"}
    answer = await http.post("/v1/messages/count_tokens", json={**asked, "system": "Be brief."})
    assert (answer.status_code, answer.json()) == (200, {"input_tokens": 7})
    assert (answer.headers["x-ratelimit-remaining-requests"], answer.headers["x-ratelimit-remaining-tokens"]) == ("99", "1000")
    assert world.replicas.bodies == [{**asked, "system": "Be brief."}]
    world.replicas.script.append(FakeAnswer([b'{"error":{"message":"no"}}'], status=400))
    for body in (asked, {**asked, "model": "claude"}, {**asked, "messages": "x"}):
        assert error_in(await http.post("/v1/messages/count_tokens", json=body))
