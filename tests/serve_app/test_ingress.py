"""Every route of the application over HTTP, with fakes behind it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deployments.errors import NoReplicaError
from deployments.replicas import Replica
from serve_app.openai import sse
from tests.serve_app.clients import CANARY, CHAT, ENCODER, METRICS, client_of, error_of
from tests.serve_app.fakes import MODEL, TEXT, FakeAnswer, World, floats_of, make_world, streamed, whole


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world(ingress={"max_body_bytes": 4096})
    yield world
    await world.keeper.stop()


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as http:
        yield http


# Generation


async def test_a_chat(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/chat/completions", json=CHAT)
    assert (response.status_code, response.content) == (200, whole(TEXT))
    assert response.headers["content-type"] == "application/json"
    assert (response.headers["x-mygo-cache"], response.headers["x-mygo-replica"]) == ("miss", "r1")
    assert (await http.post("/v1/chat/completions", json=CHAT)).headers["x-mygo-cache"] == "exact"


async def test_a_streamed_chat(http: httpx.AsyncClient) -> None:
    asked = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    response = await http.post("/v1/chat/completions", json=asked)
    assert (response.status_code, response.content) == (200, b"".join(streamed(TEXT)))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-accel-buffering"] == "no"
    hit = await http.post("/v1/chat/completions", json=asked)
    assert hit.headers["x-mygo-cache"] == "exact"
    assert hit.headers["content-type"] == response.headers["content-type"]
    assert hit.content.endswith(sse.DONE)


async def test_a_text_completion(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/completions", json={"model": MODEL, "prompt": "A cache is"})
    assert (response.status_code, response.content) == (200, whole(TEXT, chat=False))


async def test_headers_reach_the_pipeline(http: httpx.AsyncClient, world: World) -> None:
    async def outcome(**headers: str) -> str:
        response = await http.post("/v1/chat/completions", json=CHAT, headers={each.replace("_", "-"): headers[each] for each in headers})
        return response.headers["x-mygo-cache"]

    assert await outcome() == "miss"
    assert await outcome(x_mygo_tenant="b") == "miss"
    assert await outcome(x_mygo_tenant="b") == "exact"
    assert await outcome(cache_control="max-age=0, No-Cache") == "bypass"
    assert await outcome(cache_control="no-store") == "bypass"
    assert await outcome(x_request_id="r-7", x_mygo_tenant="c") == "miss"
    assert world.replicas.calls[-1].headers["x-request-id"] == "r-7"


async def test_requests_are_counted_by_route(http: httpx.AsyncClient, world: World) -> None:
    await http.post("/v1/chat/completions", json=CHAT)
    await http.post("/v1/chat/completions", json=CHAT)
    await http.get(f"/v1/models/{CANARY}")
    assert world.metrics.requests == [
        ("POST /v1/chat/completions", 200, "miss"),
        ("POST /v1/chat/completions", 200, "exact"),
        ("GET /v1/models/{model:path}", 404, ""),
    ]


BAD: list[tuple[str, Any, int, str | None]] = [
    ("/v1/chat/completions", {**CHAT, "max_tokens": 0}, 400, "max_tokens"),
    ("/v1/chat/completions", {**CHAT, "max_tokens": 10**9}, 400, "max_tokens"),
    ("/v1/chat/completions", {**CHAT, "model": CANARY}, 404, "model"),
    ("/v1/chat/completions", {**CHAT, "messages": []}, 400, "messages"),
    ("/v1/chat/completions", [CANARY], 400, None),
    ("/v1/completions", {"model": MODEL, "prompt": {CANARY: 1}}, 400, "prompt"),
    ("/v1/completions", {"model": MODEL}, 400, "prompt"),
    ("/v1/embeddings", {"model": CANARY, "input": "x"}, 404, "model"),
    ("/v1/embeddings", {"model": ENCODER, "input": []}, 400, "input"),
    ("/v1/embeddings", {"model": ENCODER, "input": ["x", ""]}, 400, "input"),
    ("/v1/embeddings", {"model": ENCODER, "input": "x", "dimensions": 7}, 400, "dimensions"),
    ("/v1/embeddings", {"model": ENCODER, "input": "x", "encoding_format": CANARY}, 400, "encoding_format"),
    ("/v1/vector_stores", {"name": 7}, 400, "name"),
    ("/v1/vector_stores/vs/documents", {"documents": []}, 400, "documents"),
    ("/v1/vector_stores", {f"{CANARY} ": CANARY}, 400, None),
    ("/v1/vector_stores", {"expires_after": {"anchor": "last_active_at", "days": 1}}, 400, "expires_after"),
    ("/v1/vector_stores", {"file_ids": 1}, 400, "file_ids"),
    ("/v1/vector_stores", {"chunking_strategy": {"type": CANARY}}, 400, "chunking_strategy.type"),
    ("/v1/vector_stores", {"chunking_strategy": {"type": "static"}}, 400, "chunking_strategy.static"),
    ("/v1/vector_stores/vs", {"expires_after": {}}, 400, "expires_after"),
    ("/v1/vector_stores/vs/files", {}, 400, "file_id"),
    ("/v1/vector_stores/vs/files", {"file_id": "f", "attributes": {"a": [CANARY]}}, 400, "attributes"),
    ("/v1/vector_stores/vs/file_batches", {}, 400, "file_ids"),
    ("/v1/vector_stores/vs/file_batches", {"file_ids": ["f"], "files": [{"file_id": "f"}]}, 400, "file_ids"),
    ("/v1/vector_stores/vs/file_batches", {"files": [{"file_id": "f"}], "attributes": {}}, 400, "files"),
    ("/v1/vector_stores/vs/search", {"query": "x", "filters": {CANARY: CANARY}}, 400, "filters.type"),
    ("/v1/vector_stores/vs/search", {"query": "x", "filters": {"type": "gt", "key": "a", "value": True}}, 400, "filters.value"),
    ("/v1/vector_stores/vs/search", {"query": "x", "filters": CANARY}, 400, "filters"),
    ("/v1/vector_stores/vs/search", {"query": []}, 400, "query"),
    ("/v1/vector_stores/vs/search", {"query": "x", "rewrite_query": True}, 400, "rewrite_query"),
    ("/v1/vector_stores/vs/search", {"query": "x", "ranking_options": {"score_threshold": 2}}, 400, "ranking_options.score_threshold"),
    ("/v1/vector_stores/vs/documents", {"documents": [{"text": "x", "title": 1}]}, 400, "documents[0].title"),
    ("/v1/vector_stores/vs/documents", {"documents": [{"id": CANARY}]}, 400, "documents[0].text"),
    ("/v1/vector_stores/vs/search", {"query": ""}, 400, "query"),
    ("/v1/vector_stores/vs/search", {"query": "x", "max_num_results": 0}, 400, "max_num_results"),
    ("/v1/vector_stores/vs/search", {"query": "x", "max_num_results": 10**6}, 400, "max_num_results"),
]


@pytest.mark.parametrize(("path", "body", "status", "param"), BAD, ids=lambda value: str(value)[:50])
async def test_bad_input(http: httpx.AsyncClient, path: str, body: Any, status: int, param: str | None) -> None:
    response = await http.post(path, json=body)
    assert response.status_code == status
    error = error_of(response)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/vector_stores"])
async def test_bodies_that_are_no_json(http: httpx.AsyncClient, path: str) -> None:
    response = await http.post(path, content=b'{"model": ' + CANARY.encode())
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/vector_stores"])
async def test_a_body_over_the_limit(http: httpx.AsyncClient, path: str) -> None:
    async def without_a_length() -> AsyncIterator[bytes]:
        yield b"x" * 4000
        yield b"x" * 4000

    declared = await http.post(path, content=b"x" * 4097)
    streamed = await http.post(path, content=without_a_length())
    assert [(each.status_code, error_of(each)["code"]) for each in (declared, streamed)] == [(413, "body_too_large")] * 2


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/vector_stores"])
async def test_a_tenants_name_that_is_none(http: httpx.AsyncClient, path: str) -> None:
    body = {"/v1/chat/completions": CHAT, "/v1/embeddings": {"model": ENCODER, "input": "x"}}.get(path, {})
    response = await http.post(path, json=body, headers={"x-mygo-tenant": f"{CANARY} or 1=1"})
    assert (response.status_code, error_of(response)["param"]) == (400, "x-mygo-tenant")


async def test_without_replicas_the_client_may_try_again(http: httpx.AsyncClient, world: World) -> None:
    world.replicas.script.append(NoReplicaError(CANARY))
    response = await http.post("/v1/chat/completions", json=CHAT)
    assert (response.status_code, error_of(response)["code"], response.headers["retry-after"]) == (503, "no_replica", "1")


# Routes that are none


@pytest.mark.parametrize(
    "path", ["/", "/v1", f"/v1/{CANARY}", "/v1/chat", "/v1/vector_stores/a/b/c", "/v1/uploads", "/mygo/load", "/v1/files/"]
)
async def test_an_unknown_route(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)
    assert response.status_code == 404
    error = error_of(response)
    assert (error["type"], error["code"]) == ("invalid_request_error", "unknown_url")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/chat/completions"),
        ("PUT", "/v1/completions"),
        ("DELETE", "/v1/embeddings"),
        ("POST", "/v1/models"),
        ("POST", "/healthz"),
        ("PATCH", "/v1/vector_stores"),
        ("GET", "/v1/vector_stores/vs/search"),
    ],
)
async def test_a_method_that_a_route_does_not_have(http: httpx.AsyncClient, method: str, path: str) -> None:
    response = await http.request(method, path)
    assert (response.status_code, error_of(response)["type"]) == (405, "invalid_request_error")
    assert response.headers["allow"]


# Models


async def test_models(http: httpx.AsyncClient) -> None:
    listed = (await http.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == [MODEL, ENCODER]
    assert "/secret/path" not in str(listed)
    assert (await http.get(f"/v1/models/{ENCODER}")).json() == listed["data"][1]
    assert (await http.get(f"/v1/models/{MODEL}")).json() == listed["data"][0]


@pytest.mark.parametrize("name", [CANARY, f"{CANARY}/{MODEL}"])
async def test_an_unknown_model(http: httpx.AsyncClient, name: str) -> None:
    response = await http.get(f"/v1/models/{name}")
    assert (response.status_code, error_of(response)["code"]) == (404, "model_not_found")


# Embeddings


async def test_embeddings(http: httpx.AsyncClient) -> None:
    texts = ["a cache", "a replica of it"]
    body = (await http.post("/v1/embeddings", json={"model": ENCODER, "input": texts})).json()
    assert (body["object"], body["model"], body["usage"]) == ("list", ENCODER, {"prompt_tokens": 6, "total_tokens": 6})
    assert [(each["object"], each["index"], len(each["embedding"])) for each in body["data"]] == [("embedding", i, 8) for i in range(2)]
    for text, each in zip(texts, body["data"], strict=True):
        alone = (await http.post("/v1/embeddings", json={"model": ENCODER, "input": text})).json()
        assert alone["data"][0]["embedding"] == each["embedding"]


async def test_embeddings_in_base64_hold_the_same_numbers(http: httpx.AsyncClient) -> None:
    asked = {"model": ENCODER, "input": "a cache", "dimensions": 8}
    as_floats = (await http.post("/v1/embeddings", json={**asked, "encoding_format": "float"})).json()
    as_base64 = (await http.post("/v1/embeddings", json={**asked, "encoding_format": "base64"})).json()
    assert floats_of(as_base64["data"][0]["embedding"]) == as_floats["data"][0]["embedding"]


async def test_an_encoder_that_fails_is_said_without_its_error(http: httpx.AsyncClient, world: World) -> None:
    world.embedding.fault.error = RuntimeError(CANARY)
    response = await http.post("/v1/embeddings", json={"model": ENCODER, "input": "x"})
    assert (response.status_code, error_of(response)["type"]) == (500, "server_error")


# Operations


async def test_health_asks_nobody(http: httpx.AsyncClient, world: World) -> None:
    response = await http.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert world.steps == []


async def test_ready(http: httpx.AsyncClient) -> None:
    response = await http.get("/readyz")
    assert response.status_code == 200
    load = {"running": 0, "waiting": 0, "kv_usage": 0.0, "draining": False}
    counts = {"replicas_wanted": 1, "replicas_ready": 1}
    assert response.json() == {"status": "ready", **counts, "replicas": [{"id": "r1", **load}], "parts": {"cache": "ready"}}


async def test_not_ready_without_replicas(http: httpx.AsyncClient, world: World) -> None:
    world.directory.replace([])
    response = await http.get("/readyz")
    assert (response.status_code, response.json()["status"], response.headers["retry-after"]) == (503, "starting", "1")


@pytest.mark.parametrize("answer", [NoReplicaError(CANARY), FakeAnswer([b"no"], 500), FakeAnswer([b'{"error": {}}'], 403)], ids=str)
async def test_not_ready_while_a_replica_does_not_answer(http: httpx.AsyncClient, world: World, answer: FakeAnswer | Exception) -> None:
    world.replicas.script.append(answer)
    response = await http.get("/readyz")
    assert response.status_code == 503
    assert CANARY not in response.text


async def test_ready_with_as_many_replicas_as_wanted(http: httpx.AsyncClient, world: World) -> None:
    world.directory.replace([Replica(name, f"http://{name}", 100, 16) for name in ("a", "b")])
    world.replicas.script.append(NoReplicaError("gone"))
    response = await http.get("/readyz")
    assert response.status_code == 200
    assert [("error" in replica, "running" in replica) for replica in response.json()["replicas"]] == [(True, False), (False, True)]


async def test_not_ready_while_a_part_is_missing(world: World) -> None:
    async with client_of(world, part="starting") as http:
        assert (await http.get("/readyz")).status_code == 503


async def test_a_part_that_failed_is_reported_and_holds_nothing_back(world: World) -> None:
    async with client_of(world, part="failed") as http:
        response = await http.get("/readyz")
        assert (response.status_code, response.json()["parts"]) == (200, {"cache": "failed"})


async def test_metrics(http: httpx.AsyncClient) -> None:
    response = await http.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.content == METRICS
