"""Every route of the application over HTTP, with fakes behind it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cache.embedders.fake import HashedWordsEmbedder
from deployments.errors import NoReplicaError
from deployments.replicas import Replica
from retrieval.config import RetrievalConfig
from retrieval.service import RetrievalService
from retrieval.store import DocumentStore
from serve_app.ingress import create_app
from serve_app.openai import sse
from serve_app.parts import Parts, State
from tests.serve_app.fakes import MODEL, TEXT, FakeAnswer, LocalRetrieval, World, floats_of, make_world, streamed, whole

CANARY = "canary_7f3a9"
ENCODER = "all-MiniLM-L6-v2"
METRICS = b"# TYPE mygo_requests counter\nmygo_requests_total 1.0\n"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "What is a cache?"}]}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world(ingress={"max_body_bytes": 4096})
    yield world
    await world.keeper.stop()


def client_of(world: World, *, part: State = "ready") -> httpx.AsyncClient:
    parts = Parts({})
    parts.states["cache"] = part

    async def scrape() -> bytes:
        return METRICS

    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(world.pipeline, parts, scrape)), base_url="http://test")


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as http:
        yield http


def error_of(response: httpx.Response) -> Any:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert CANARY not in response.text
    return body["error"]


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
    ("/v1/vector_stores", {"file_ids": [CANARY]}, 400, None),
    ("/v1/vector_stores/vs/search", {"query": "x", "filters": {CANARY: CANARY}}, 400, None),
    ("/v1/vector_stores/vs/documents", {"documents": [{"text": "x", CANARY: 1}]}, 400, "documents[0]"),
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


@pytest.mark.parametrize("path", ["/", "/v1", f"/v1/{CANARY}", "/v1/chat", "/v1/vector_stores/a/b/c", "/v1/files", "/mygo/load"])
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
    assert response.json() == {"status": "ready", "replicas_wanted": 1, "replicas": [{"id": "r1", **load}], "parts": {"cache": "ready"}}


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


# Vector stores, with the real retrieval tier


@pytest.fixture
async def stores(world: World, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    embedder = HashedWordsEmbedder()
    service = RetrievalService(DocumentStore(f"sqlite:///{tmp_path}/d.db", embedder.name), embedder, RetrievalConfig(), world.clock)
    world.pipeline = replace(world.pipeline, documents=LocalRetrieval(service))
    async with client_of(world) as http:
        yield http
    service.close()


DOCUMENTS: list[dict[str, Any]] = [
    {"id": "moon", "text": "The moon is far away."},
    {"id": "tea", "text": "Brew green tea at 80 degrees.", "attributes": {"hot": True}},
]


async def new_store(stores: httpx.AsyncClient) -> str:
    created = await stores.post("/v1/vector_stores", json={"name": "facts", "metadata": {"owner": "me"}})
    path = f"/v1/vector_stores/{created.json()['id']}"
    added = await stores.post(f"{path}/documents", json={"documents": DOCUMENTS})
    assert [each["id"] for each in added.json()["data"]] == ["moon", "tea"]
    return path


async def test_a_store_and_its_documents(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    store = (await stores.get(path)).json()
    assert (store["object"], store["name"], store["metadata"], store["status"]) == ("vector_store", "facts", {"owner": "me"}, "completed")
    assert store["file_counts"]["total"] == 2
    assert [each["id"] for each in (await stores.get("/v1/vector_stores")).json()["data"]] == [store["id"]]
    documents = (await stores.get(f"{path}/documents")).json()["data"]
    assert [(each["id"], each["attributes"]) for each in documents] == [("moon", {}), ("tea", {"hot": True})]


async def test_long_lists_come_in_pages(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    first = (await stores.get(f"{path}/documents", params={"limit": 1})).json()
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (["moon"], True)
    second = (await stores.get(f"{path}/documents", params={"limit": 1, "after": first["last_id"]})).json()
    assert ([each["id"] for each in second["data"]], second["has_more"], second["first_id"]) == (["tea"], False, "tea")
    last = (await stores.get(f"{path}/documents", params={"after": second["last_id"]})).json()
    assert (last["data"], last["first_id"], last["last_id"], last["has_more"]) == ([], None, None, False)
    await stores.post("/v1/vector_stores", json={})
    assert (await stores.get("/v1/vector_stores", params={"limit": 1, "order": "asc"})).json()["has_more"]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", CANARY, "9" * 5000, "\u00b2", "\u0663"])
async def test_a_page_of_no_size(stores: httpx.AsyncClient, limit: str) -> None:
    response = await stores.get("/v1/vector_stores", params={"limit": limit})
    assert (response.status_code, error_of(response)["param"]) == (400, "limit")


async def test_a_search_finds_the_nearest_text(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    page = (await stores.post(f"{path}/search", json={"query": "green tea", "max_num_results": 1})).json()
    assert (page["object"], page["search_query"], page["has_more"]) == ("vector_store.search_results.page", ["green tea"], False)
    (hit,) = page["data"]
    assert (hit["file_id"], hit["attributes"]) == ("tea", {"hot": True})
    assert hit["content"] == [{"type": "text", "text": DOCUMENTS[1]["text"]}]


async def test_what_is_deleted_is_gone(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    assert (await stores.delete(f"{path}/documents/moon")).json()["deleted"]
    assert (await stores.delete(f"{path}/documents/moon")).status_code == 404
    found = (await stores.post(f"{path}/search", json={"query": "moon"})).json()["data"]
    assert [hit["file_id"] for hit in found] == ["tea"]
    assert (await stores.delete(path)).json()["deleted"]
    assert (await stores.get(path)).status_code == 404
    assert (await stores.post(f"{path}/search", json={"query": "moon"})).status_code == 404


async def test_tenants_do_not_see_each_others_stores(stores: httpx.AsyncClient) -> None:
    path = await new_store(stores)
    other = {"x-mygo-tenant": "other"}
    assert (await stores.get("/v1/vector_stores", headers=other)).json()["data"] == []
    seen = [
        await stores.get(path, headers=other),
        await stores.delete(path, headers=other),
        await stores.get(f"{path}/documents", headers=other),
        await stores.post(f"{path}/documents", json={"documents": DOCUMENTS}, headers=other),
        await stores.delete(f"{path}/documents/moon", headers=other),
        await stores.post(f"{path}/search", json={"query": "moon"}, headers=other),
        await stores.post(
            "/v1/chat/completions", json={**CHAT, "retrieval": {"vector_store_ids": [path.rsplit("/", 1)[1]]}}, headers=other
        ),
    ]
    assert [(each.status_code, error_of(each)["code"]) for each in seen] == [(404, "not_found")] * 7
    assert (await stores.get(path)).json()["file_counts"]["total"] == 2


async def test_a_chat_gets_the_documents_of_its_store(stores: httpx.AsyncClient, world: World) -> None:
    store_id = (await new_store(stores)).rsplit("/", 1)[1]
    response = await stores.post("/v1/chat/completions", json={**CHAT, "retrieval": {"vector_store_ids": [store_id], "top_k": 2}})
    assert response.headers["x-mygo-cache"] == "miss"
    assert len(response.headers["x-mygo-documents"].split(",")) == 2
    assert all(document["text"] in world.replicas.bodies[-1]["messages"][0]["content"] for document in DOCUMENTS)


@pytest.mark.parametrize(
    ("field", "document"),
    [("text", {"text": " "}), ("id", {"text": "x", "id": f"{CANARY}#"}), ("attributes", {"text": "x", "attributes": {"a": "x" * 1000}})],
)
async def test_a_document_that_cannot_be_kept(stores: httpx.AsyncClient, field: str, document: dict[str, Any]) -> None:
    path = await new_store(stores)
    response = await stores.post(f"{path}/documents", json={"documents": [{"text": "good"}, document]})
    assert (response.status_code, error_of(response)["param"]) == (400, f"documents.{field}")
    assert (await stores.get(path)).json()["file_counts"]["total"] == 2


async def test_routes_of_stores_without_retrieval() -> None:
    world = make_world(retrieval={"enabled": False})
    async with client_of(world) as http:
        assert (await http.get("/v1/vector_stores")).status_code == 404
        assert (await http.post("/v1/vector_stores", json={})).status_code == 404
