"""A replica's private port: who may use it, what it refuses, and how it behaves on the wire."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from deployments.engines.base import ASGIApp, KvEventSource, Load, Message, Receive, Send
from deployments.errors import EngineDeadError
from deployments.private_app import LOAD_PATH, SECRET_HEADER, PrivateApp, PrivateServer
from tests.deployments.servers import eventually

SECRET = "between us"
KNOWN = {SECRET_HEADER: SECRET}


class FakeEngine:
    """An engine whose application answers with a status, or holds its stream open."""

    block_size = 16
    max_model_len = 100

    def __init__(self) -> None:
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] | None = [(b"content-type", b"text/plain")]
        self.dead = False
        self.holds = False
        self.left = False
        self.paths: list[str] = []

    @property
    def app(self) -> ASGIApp:
        return self._answer

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        start = {"type": "http.response.start", "status": self.status}
        await send(start if self.headers is None else {**start, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"hello", "more_body": self.holds})
        if self.holds:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left = True

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def load(self) -> Load:
        return Load(running=3, waiting=2, kv_usage=0.5)

    def kv_event_sources(self) -> tuple[KvEventSource, ...]:
        return ()

    async def check_health(self) -> None:
        if self.dead:
            raise EngineDeadError


@asynccontextmanager
async def serving(engine: FakeEngine) -> AsyncIterator[tuple[aiohttp.ClientSession, PrivateApp, PrivateServer]]:
    app = PrivateApp(engine, SECRET)
    server = PrivateServer(app, "127.0.0.1")
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
            yield session, app, server
    finally:
        await server.stop()


async def answered(http: aiohttp.ClientSession, method: str, path: str, headers: Any = KNOWN) -> aiohttp.ClientResponse:
    """A response that was read to its end."""
    async with http.request(method, path, headers=headers) as response:
        await response.read()
    return response


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


# Who may use it


async def test_who_knows_the_secret_reaches_the_engine(engine: FakeEngine) -> None:
    async with serving(engine) as (http, _, _):
        response = await answered(http, "POST", "/v1/x")
        assert (response.status, await response.text()) == (200, "hello")
    assert engine.paths == ["/v1/x"]


@pytest.mark.parametrize("given", [None, "", "wrong", SECRET + "x", SECRET[:-1], SECRET.upper()])
async def test_nobody_else_does(engine: FakeEngine, given: str | None) -> None:
    async with serving(engine) as (http, _, _):
        for path in ("/v1/x", "/health", LOAD_PATH):
            response = await answered(http, "GET", path, {} if given is None else {SECRET_HEADER: given})
            assert response.status == 403
            assert (await response.json())["error"]["type"] == "permission_error"
    assert engine.paths == []


async def test_of_several_secrets_the_first_counts(engine: FakeEngine) -> None:
    async with serving(engine) as (http, _, _):
        response = await answered(http, "GET", "/x", [(SECRET_HEADER, "wrong"), (SECRET_HEADER, SECRET)])
        assert response.status == 403


# Load, draining, death


async def test_the_load_is_answered_without_the_engines_application(engine: FakeEngine) -> None:
    async with serving(engine) as (http, app, _):
        calm = await (await answered(http, "GET", LOAD_PATH)).json()
        app.draining = True
        draining = await (await answered(http, "GET", LOAD_PATH)).json()
    assert calm == {"running": 3, "waiting": 2, "kv_usage": 0.5, "draining": False}
    assert draining == {**calm, "draining": True}
    assert engine.paths == []


async def test_a_draining_replica_refuses_work_as_safe_to_retry(engine: FakeEngine) -> None:
    async with serving(engine) as (http, app, _):
        app.draining = True
        refused = await answered(http, "POST", "/v1/x")
        assert (refused.status, refused.headers["x-mygo-retry"]) == (503, "1")
        assert (await refused.json())["error"]["type"] == "draining"
        assert (await answered(http, "GET", "/health")).status == 200
    assert engine.paths == ["/health"]


async def test_draining_does_not_end_what_runs(engine: FakeEngine) -> None:
    engine.holds = True
    async with serving(engine) as (http, app, _):
        response = await http.post("/v1/x", headers=KNOWN)
        app.draining = True
        assert await response.content.readany() == b"hello"
        await asyncio.sleep(0)
        assert not engine.left
        response.close()
        await eventually(lambda: engine.left)


FAILURES = [(500, True, True), (503, True, True), (500, False, False), (200, True, False), (400, True, False)]


@pytest.mark.parametrize(("status", "dead", "marked"), FAILURES)
async def test_only_a_dead_engines_failure_is_safe_to_retry(engine: FakeEngine, status: int, dead: bool, marked: bool) -> None:
    engine.status, engine.dead = status, dead
    async with serving(engine) as (http, _, _):
        response = await answered(http, "POST", "/v1/x")
        assert response.status == status
        assert ("x-mygo-retry" in response.headers) == marked
        assert response.headers["content-type"] == "text/plain"


async def test_a_failure_without_headers_can_be_marked(engine: FakeEngine) -> None:
    """ASGI lets an application leave them out."""
    engine.status, engine.dead, engine.headers = 500, True, None
    async with serving(engine) as (http, _, _):
        assert (await answered(http, "POST", "/v1/x")).headers["x-mygo-retry"] == "1"


# On the wire


async def test_accepted_connections_do_not_wait_for_more_bytes(engine: FakeEngine) -> None:
    async with serving(engine) as (http, _, server):
        await answered(http, "GET", "/x")
        connections = list(server._server.server_state.connections)
        assert connections
        for connection in connections:
            sock = connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_port_of_its_own_on_its_host_alone(engine: FakeEngine) -> None:
    async with serving(engine) as (_, _, first), serving(engine) as (_, _, second):
        assert first.port != second.port
        assert first._socket.getsockname()[0] == "127.0.0.1"
        assert not os.get_inheritable(first._socket.fileno())


async def test_an_ipv6_host(engine: FakeEngine) -> None:
    try:
        server = PrivateServer(PrivateApp(engine, SECRET), "::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    await server.start()
    async with aiohttp.ClientSession() as http:
        assert (await answered(http, "GET", f"http://[::1]:{server.port}/x")).status == 200
    await server.stop()


async def test_responses_do_not_name_the_server(engine: FakeEngine) -> None:
    async with serving(engine) as (http, _, _):
        response = await answered(http, "GET", "/x")
        assert not {"server", "date"} & {name.lower() for name in response.headers}


async def test_a_stop_takes_nothing_new_and_does_not_wait(engine: FakeEngine) -> None:
    engine.holds = True
    async with serving(engine) as (http, _, server):
        response = await http.post("/v1/x", headers=KNOWN)
        await asyncio.wait_for(server.stop(), 5)
        with pytest.raises(aiohttp.ClientConnectionError):
            await answered(http, "GET", "/x")
        response.close()
