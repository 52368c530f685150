"""The WebSocket over ASGI, with the client's side played by the test."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from serve_app.modelcache.websocket import ROUTE
from serve_app.tenants import TENANT_HEADER
from tests.serve_app.fakes import eventually
from tests.serve_app.modelcache.asking import ANSWER, CANARY, LIMIT, Server, insert, query, query_body
from tests.serve_app.modelcache.backends import GatedBackend
from tests.serve_app.modelcache.socket_client import Client

BAD_REQUEST = query_body(400, "bad request")
MISS = query_body(delta_time="0.03s")


@pytest.fixture
async def gated() -> AsyncIterator[tuple[Server, GatedBackend]]:
    backend = GatedBackend()
    server = Server(backend, max_in_flight=3)
    yield server, backend
    await server.service.close()


async def settle(condition: Callable[[], bool]) -> None:
    """Waits for the condition, and then for everything that could still happen."""
    await eventually(condition)
    for _ in range(20):
        await asyncio.sleep(0)


# Frames and answers


async def test_an_exchange(server: Server) -> None:
    client = Client(server)
    client.ask("1", insert())
    await client.answers(1)
    client.ask("2", json.dumps(query()))
    frames = await client.answers(2)
    assert client.got[0] == {"type": "websocket.accept"}
    assert frames[0] == {"requestId": "1", "result": {"errorCode": 0, "errorDesc": "", "writeStatus": "success", "ids": ["id-1"]}}
    hit = {"cacheHit": True, "delta_time": "0.03s", "hit_query": "user: Who are you?", "answer": ANSWER}
    assert frames[1] == {"requestId": "2", "result": {**query_body(), **hit, "cache_id": "id-1", "similarity": 1.0}}
    await client.leave()


@pytest.mark.parametrize("request_id", ["a", 7, 0, 0.5, 10**30, True, ["a"], {"a": None}, "模"])
async def test_any_request_id_comes_back(server: Server, request_id: object) -> None:
    client = Client(server)
    client.ask(request_id, {"type": "detox"})
    (frame,) = await client.answers(1)
    assert (frame["requestId"], frame["result"]["errorCode"]) == (request_id, 102)
    await client.leave()


@pytest.mark.parametrize(("payload", "code"), [(7, 103), (True, 103), (CANARY, 103), ([CANARY], 103), ({"type": CANARY}, 102)])
async def test_errors_of_a_request_are_its_result(server: Server, payload: object, code: int) -> None:
    client = Client(server)
    client.ask("1", payload)
    (frame,) = await client.answers(1)
    assert (set(frame), frame["result"]["errorCode"]) == ({"requestId", "result"}, code)
    assert CANARY not in json.dumps(frame)
    await client.leave()


@pytest.mark.parametrize(
    "frame",
    [
        *("", "{", "7", "null", "[]", CANARY, "\ud800", "[" * 100_000, json.dumps(json.dumps({"requestId": "1", "payload": query()}))),
        *({}, {"payload": query()}, {"requestId": "", "payload": query()}, {"requestId": None, "payload": query()}, {"requestId": []}),
    ],
)
async def test_a_bad_frame(server: Server, frame: object) -> None:
    client = Client(server)
    client.say(frame)
    client.ask("2", query())
    assert await client.answers(2) == [BAD_REQUEST, {"requestId": "2", "result": MISS}]
    await client.leave()


@pytest.mark.parametrize("payload", [None, "", {}, []])
async def test_a_frame_without_payload(server: Server, payload: object) -> None:
    client = Client(server)
    client.ask("1", payload)
    client.say({"requestId": "2"})
    assert await client.answers(2) == [{**BAD_REQUEST, "requestId": "1"}, {**BAD_REQUEST, "requestId": "2"}]
    await client.leave()


async def test_a_defect_has_the_request_id(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> Any:
        return 500, query_body(500, "x")

    monkeypatch.setattr(server.service, "handle", fails)
    client = Client(server)
    client.ask("1", query())
    assert await client.answers(1) == [{**query_body(500, "x"), "requestId": "1"}]
    await client.leave()


async def test_binary_frames_are_read_too(server: Server) -> None:
    client = Client(server)
    client.say_bytes(json.dumps({"requestId": "1", "payload": query()}).encode())
    client.say_bytes(b"\xff")
    assert await client.answers(2) == [{"requestId": "1", "result": MISS}, BAD_REQUEST]
    await client.leave()


async def test_frames_are_bounded(server: Server) -> None:
    client = Client(server)
    frame = json.dumps({"requestId": "1", "payload": query()})
    client.say(frame.ljust(LIMIT))
    client.say(frame.ljust(LIMIT + 1))
    client.say('"' + "模" * (LIMIT // 3) + '"')
    assert await client.answers(3) == [{"requestId": "1", "result": MISS}, BAD_REQUEST, BAD_REQUEST]
    await client.leave()


# Tenants


async def test_the_header_names_the_tenant(server: Server) -> None:
    for tenant in ("a", "b"):
        client = Client(server, {TENANT_HEADER: tenant})
        client.ask("1", insert())
        await client.answers(1)
        await client.leave()
    assert set(server.backend.models) == {("a", "CODEGPT-1008"), ("b", "CODEGPT-1008")}


async def test_a_tenant_that_is_none_is_not_let_in(server: Server) -> None:
    client = Client(server, {TENANT_HEADER: "a/b"})
    await client.task
    assert client.got == [{"type": "websocket.close", "code": 1008}]


# Many at once


async def test_answers_come_as_they_are_done(gated: tuple[Server, GatedBackend]) -> None:
    server, backend = gated
    client = Client(server)
    for text in "abc":
        client.ask(text, query(text))
    for done, text in enumerate("cab", 1):
        backend.open(text)
        await client.answers(done)
    assert [frame["requestId"] for frame in client.frames] == ["c", "a", "b"]
    await client.leave()


async def test_no_more_is_read_than_is_worked_on(gated: tuple[Server, GatedBackend]) -> None:
    """And one frame that waits, so that the client's leaving would be seen."""
    server, backend = gated
    client = Client(server)
    for text in "abcdefgh":
        client.ask(text, query(text))
    await settle(lambda: client.read == 4)
    assert (client.read, backend.asked) == (4, ["a", "b", "c"])
    backend.open("b")
    await settle(lambda: client.read == 5)
    assert (client.read, backend.asked) == (5, ["a", "b", "c", "d"])
    for text in "abcdefgh":
        backend.open(text)
    await client.answers(8)
    await client.leave()


async def test_a_client_that_does_not_read_is_not_read(gated: tuple[Server, GatedBackend]) -> None:
    server, backend = gated
    client = Client(server)
    await settle(lambda: len(client.got) == 1)
    client.reads_replies.clear()
    for text in "abcdefgh":
        backend.open(text)
        client.ask(text, query(text))
    await settle(lambda: client.read == 4)
    assert client.read == 4
    client.reads_replies.set()
    await client.answers(8)
    await client.leave()


async def test_one_connection_does_not_hold_up_another(gated: tuple[Server, GatedBackend]) -> None:
    server, backend = gated
    busy, other = Client(server), Client(server)
    for text in "abc":
        busy.ask(text, query(text))
    backend.open("x")
    other.ask("x", query("x"))
    assert (await other.answers(1))[0]["requestId"] == "x"
    await busy.leave()
    await other.leave()


# The end


@pytest.mark.parametrize("code", [1000, 1005, 1012])
async def test_a_client_that_leaves_has_its_requests_cancelled(gated: tuple[Server, GatedBackend], code: int) -> None:
    """So has one whose server closes: that is the code 1012."""
    server, backend = gated
    client = Client(server)
    for text in "abc":
        client.ask(text, query(text))
    await settle(lambda: len(backend.asked) == 3)
    await client.leave(code)
    assert sorted(backend.cancelled) == ["a", "b", "c"]
    assert client.frames == []
    assert server.metrics.left == [ROUTE]


@pytest.mark.parametrize("error", [OSError(), ConnectionResetError(), RuntimeError("after websocket.close")])
async def test_a_client_that_cannot_be_written_to_has_left(gated: tuple[Server, GatedBackend], error: Exception) -> None:
    server, backend = gated
    client = Client(server)
    for text in "abcdefgh":
        client.ask(text, query(text))
    await settle(lambda: len(backend.asked) == 3)
    client.broken = error
    backend.open("b")
    await asyncio.wait_for(client.task, 5)
    assert sorted(backend.cancelled) == ["a", "c"]


async def test_a_cancelled_connection_cancels_its_requests(gated: tuple[Server, GatedBackend]) -> None:
    server, backend = gated
    client = Client(server)
    client.ask("a", query("a"))
    await settle(lambda: len(backend.asked) == 1)
    client.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client.task
    assert backend.cancelled == ["a"]
    assert server.metrics.left == [ROUTE]


async def test_a_client_that_leaves_idle(server: Server) -> None:
    client = Client(server)
    client.ask("1", query())
    await client.answers(1)
    await client.leave()
    assert server.metrics.left == []
    assert server.metrics.requests == [(ROUTE, 200, "")]


async def test_a_client_that_is_gone_before_it_is_let_in(server: Server) -> None:
    client = Client(server)
    client.broken = OSError()
    await asyncio.wait_for(client.task, 5)


# Behind Starlette's router


def test_the_route() -> None:
    with TestClient(Server().app) as client, client.websocket_connect("/modelcache") as socket:
        socket.send_json({"requestId": "1", "payload": query()})
        assert socket.receive_json() == {"requestId": "1", "result": MISS}
        assert client.get("/welcome").text == "hello, modelcache!"


def test_a_tenant_that_is_none_gets_no_connection() -> None:
    with TestClient(Server().app) as client, pytest.raises(WebSocketDisconnect) as refused:
        client.websocket_connect("/modelcache", headers={TENANT_HEADER: "a/b"}).__enter__()
    assert refused.value.code == 1008
