"""ModelCache's clients over HTTP, as their examples write them."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from serve_app.tenants import TENANT_HEADER
from tests.serve_app.modelcache.asking import (
    ANSWER,
    CANARY,
    LIMIT,
    QUESTION,
    SYSTEM,
    Json,
    Server,
    delete,
    insert,
    query,
    query_body,
    request,
    truncate,
)

Ask = Callable[[Any], Any]


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with server.http as http:
        yield http


@pytest.fixture(params=["object", "string", "text", "get"])
def ask(request: pytest.FixtureRequest, http: httpx.AsyncClient) -> Ask:
    """Sends a request as a client of one of the generations does, and gives its body."""

    async def ask(payload: Json) -> Any:
        text = json.dumps(payload)
        match request.param:
            case "object":
                response = await http.post("/modelcache", json=payload)
            case "string":
                response = await http.post("/modelcache", headers={"Content-Type": "application/json"}, json=text)
            case "text":
                response = await http.post("/modelcache", headers={"Content-Type": "text/plain"}, content=text)
            case _:
                response = await http.get("/modelcache", params={"data": text})
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        return response.json()

    return ask


async def test_a_clients_whole_day(ask: Ask) -> None:
    created = {"errorCode": 0, "errorDesc": "", "response": "create_success", "writeStatus": "success"}
    assert await ask(request("register")) == created
    assert await ask(request("register")) == {**created, "response": "already_exists"}
    assert await ask(query()) == query_body(delta_time="0.03s")
    assert await ask(insert("a", QUESTION)) == {"errorCode": 0, "errorDesc": "", "writeStatus": "success", "ids": ["id-1", "id-2"]}
    hit = {"cacheHit": True, "delta_time": "0.03s", "hit_query": "user: Who are you?", "answer": ANSWER}
    assert await ask(query()) == {**query_body(), **hit, "cache_id": "id-2", "similarity": 1.0}
    response = {"status": "success", "milvus": "delete_count: 1", "mysql": "delete_count: 1"}
    assert await ask(delete(["id-1"])) == {"errorCode": 0, "errorDesc": "", "response": response, "writeStatus": "success"}
    truncated = await ask(truncate())
    assert truncated["response"].items() >= {"status": "success", "VectorDB": "rebuild", "ScalarDB": "delete_count: 1"}.items()
    assert await ask(query()) == query_body(delta_time="0.03s")


async def test_the_long_query_example(ask: Ask) -> None:
    blank = [{"role": "system", "content": "\n    "}, {"role": "user", "content": "\n    "}]
    assert await ask({"type": "query", "scope": {"model": "CODEGPT-1109"}, "query": blank}) == query_body(delta_time="0.03s")


async def test_the_example_with_the_system_prompt_last(ask: Ask) -> None:
    def asks(question: str) -> list[Json]:
        return [{"role": "user", "content": question}, {"role": "system", "content": SYSTEM}]

    await ask(request("insert", chat_info=[{"query": asks(QUESTION), "answer": ANSWER}]))
    assert (await ask(request("query", query=asks(QUESTION))))["hit_query"] == "user: Who are you?"
    assert (await ask(request("query", query=asks("What is the time?"))))["cacheHit"] is False


async def test_a_chinese_text_arrives_whole(ask: Ask) -> None:
    await ask(insert("你是谁?", answer="你好!"))
    body = await ask(query("你是谁?"))
    assert (body["hit_query"], body["answer"]) == ("user: 你是谁?", "你好!")


BAD_REQUEST = query_body(400, "bad request")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", f"{{'{CANARY}'}}".encode()])
async def test_a_body_that_is_no_json(http: httpx.AsyncClient, body: bytes) -> None:
    response = await http.post("/modelcache", content=body)
    assert (response.status_code, response.json()) == (400, BAD_REQUEST)
    response = await http.get(f"/modelcache?data={quote(body)}")
    assert (response.status_code, response.json()) == (400, BAD_REQUEST)


@pytest.mark.parametrize("target", ["/modelcache", "/modelcache?", "/modelcache?type=query", "/modelcache?data", "/modelcache?data="])
async def test_get_without_data(http: httpx.AsyncClient, target: str) -> None:
    response = await http.get(target)
    assert (response.status_code, response.json()) == (400, BAD_REQUEST)


async def test_json_that_is_no_request(http: httpx.AsyncClient) -> None:
    for body in (b"7", b"[]", b'"hello"', b'{"scope": {"model": null}}'):
        response = await http.post("/modelcache", content=body)
        assert (response.status_code, response.json()["errorCode"]) == (200, 103)


async def test_an_unknown_type(http: httpx.AsyncClient) -> None:
    response = await http.post("/modelcache", json={"type": "detox"})
    words = "type exception, should one of ['query', 'insert', 'remove', 'register']"
    assert (response.status_code, response.json()) == (200, query_body(102, words))


async def test_the_header_names_the_tenant(http: httpx.AsyncClient) -> None:
    await http.post("/modelcache", json=insert(), headers={TENANT_HEADER: "a"})
    for tenant, hit in (("a", True), ("b", False), ("default", False)):
        response = await http.post("/modelcache", json=query(), headers={TENANT_HEADER: tenant})
        assert response.json()["cacheHit"] is hit
    assert (await http.post("/modelcache", json=query())).json()["cacheHit"] is False


@pytest.mark.parametrize("headers", [[(TENANT_HEADER, "")], [(TENANT_HEADER, f"{CANARY}/")], [(TENANT_HEADER, "a"), (TENANT_HEADER, "b")]])
async def test_a_tenant_that_is_none(http: httpx.AsyncClient, headers: list[tuple[str, str]]) -> None:
    response = await http.post("/modelcache", json=query(), headers=headers)
    body = response.json()
    assert (response.status_code, body) == (400, query_body(400, body["errorDesc"]))
    assert TENANT_HEADER in body["errorDesc"]
    assert CANARY not in response.text


async def test_the_request_id_reaches_the_log(
    http: httpx.AsyncClient, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(server.backend, "query", fails)
    response = await http.post("/modelcache", json=query(), headers={"x-request-id": "r-7"})
    assert (response.status_code, response.json()["errorCode"]) == (200, 201)
    assert CANARY not in response.text
    assert [record.__dict__["id"] for record in caplog.records if record.levelname == "ERROR"] == ["r-7"]


async def test_welcome(http: httpx.AsyncClient) -> None:
    response = await http.get("/welcome")
    assert (response.status_code, response.content) == (200, b"hello, modelcache!")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_multimodal_cache_is_not_here(http: httpx.AsyncClient, method: str) -> None:
    response = await http.request(method, "/multicache", json={"request_type": "query", "UUID": CANARY})
    assert (response.status_code, response.json()["errorCode"]) == (400, 400)
    assert response.json() == query_body(400, "The multimodal cache is not available here; /modelcache keeps texts.")


async def test_a_long_body(http: httpx.AsyncClient) -> None:
    assert (await http.post("/modelcache", content=b"x" * (LIMIT + 1))).status_code == 413


async def test_requests_are_counted(http: httpx.AsyncClient, server: Server) -> None:
    await http.post("/modelcache", json=query())
    await http.post("/modelcache", content=b"{")
    await http.get("/welcome")
    counted = [("POST /modelcache", 200, ""), ("POST /modelcache", 400, ""), ("GET /welcome", 200, "")]
    assert server.metrics.requests == counted
