"""The WebSocket on a real server, with a real client."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from serve_app.tenants import TENANT_HEADER
from tests.serve_app.fakes import eventually
from tests.serve_app.modelcache.asking import Json, Server, insert, query, query_body
from tests.serve_app.modelcache.backends import GatedBackend


@dataclass
class Running:
    server: Server
    backend: GatedBackend
    uvicorn: uvicorn.Server
    task: "asyncio.Task[None]"

    @property
    def url(self) -> str:
        port = self.uvicorn.servers[0].sockets[0].getsockname()[1]
        return f"ws://127.0.0.1:{port}/modelcache"


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    backend = GatedBackend()
    server = Server(backend)
    http = uvicorn.Server(uvicorn.Config(server.app, port=0, lifespan="off", log_config=None))
    task = asyncio.create_task(http._serve())  # `serve` would take the tests' signal handlers
    await eventually(lambda: http.started)
    yield Running(server, backend, http, task)
    http.should_exit = True
    await task
    await server.service.close()


async def ask(client: ClientConnection, request_id: str, payload: Json) -> None:
    await client.send(json.dumps({"requestId": request_id, "payload": payload}))


async def test_exchanges(running: Running) -> None:
    async with connect(running.url) as client:
        await ask(client, "a", query("a"))
        await ask(client, "b", query("b"))
        for text in "ba":
            running.backend.open(text)
            answer = json.loads(await client.recv())
            assert (answer["requestId"], answer["result"]["errorCode"]) == (text, 0)
        await client.send(b"{")
        assert json.loads(await client.recv()) == query_body(400, "bad request")


async def test_a_tenant(running: Running) -> None:
    async with connect(running.url, additional_headers={TENANT_HEADER: "a"}) as client:
        await ask(client, "1", insert())
        assert json.loads(await client.recv())["result"]["ids"] == ["id-1"]
    assert list(running.backend.models) == [("a", "CODEGPT-1008")]
    with pytest.raises(InvalidStatus) as refused:
        async with connect(running.url, additional_headers={TENANT_HEADER: "a/b"}):
            pass
    assert refused.value.response.status_code == 403


async def test_a_client_that_goes_away(running: Running) -> None:
    async with connect(running.url) as client:
        await ask(client, "a", query("a"))
        await eventually(lambda: running.backend.asked == ["a"])
        client.transport.abort()
    await eventually(lambda: running.backend.cancelled == ["a"])


async def test_a_server_that_goes_away(running: Running) -> None:
    async with connect(running.url) as client:
        await ask(client, "a", query("a"))
        await eventually(lambda: running.backend.asked == ["a"])
        running.uvicorn.should_exit = True
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    await eventually(lambda: running.backend.cancelled == ["a"])
