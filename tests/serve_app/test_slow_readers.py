"""Clients that do not read, over real sockets and with a `send` that a test holds up."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from serve_app.exchanges import Exchanges
from serve_app.ingress import create_app
from serve_app.parts import Parts
from serve_app.slow_readers import PatientSend, SlowReaderError
from tests.serve_app.fakes import MODEL, FakeAnswer, World, eventually, make_world

CLIENTS = 200
LIMIT_S = 0.5
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 4000 + b'"}}]}\n\n'
KERNEL = 64 * 1024
"""What the socket of a client may hold at each end, about; the kernel doubles it."""
BODY = {"type": "http.response.body", "body": b"x", "more_body": True}


class Stuck:
    """A `send` that takes so many messages and no more."""

    def __init__(self, takes: int = 0) -> None:
        self.takes = takes

    async def __call__(self, message: Any) -> None:
        self.takes -= 1
        if self.takes < 0:
            await asyncio.Event().wait()


async def test_a_message_that_is_not_taken_is_given_up() -> None:
    send = PatientSend(Stuck(3), 0.02)
    for _ in range(3):
        await send(BODY)
    with pytest.raises(SlowReaderError):
        await asyncio.wait_for(send(BODY), 5)
    send.close()


async def test_each_message_has_its_own_time() -> None:
    async def slow(message: Any) -> None:
        await asyncio.sleep(0.02)

    send = PatientSend(slow, 0.05)
    for _ in range(6):
        await send(BODY)
    await asyncio.sleep(0.08)  # nothing is waited with now
    await send(BODY)
    send.close()


async def test_whoever_is_cancelled_otherwise_hears_of_that() -> None:
    send = PatientSend(Stuck(), 5)
    sending = asyncio.create_task(send(BODY))
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait([sending])
    assert sending.cancelled()
    send.close()


class Endless(FakeAnswer):
    """An answer without an end, which counts what is taken of it."""

    taken = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            yield EVENT
            Endless.taken += len(EVENT)
            await asyncio.sleep(0)


def listening() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)  # those that it accepts have that, too
    sock.bind(("127.0.0.1", 0))
    sock.listen(CLIENTS)
    sock.setblocking(False)
    return sock


def silent_client(port: int, number: int) -> socket.socket:
    """Asks for a stream, and reads nothing of it."""
    body = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": f"Endless {number}"}]}).encode()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL)
    sock.connect(("127.0.0.1", port))
    sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    return sock


async def test_two_hundred_that_read_nothing_take_little_memory_and_lose_their_places() -> None:
    world: World = make_world(ingress={"client_timeout_s": LIMIT_S}, limits={"concurrency": CLIENTS})
    world.replicas.script.extend(Endless([]) for _ in range(CLIENTS))

    async def scrape() -> bytes:
        return b""

    app = create_app(world.pipeline, Parts({}), scrape, exchanges=Exchanges(world.metrics, client_timeout_s=LIMIT_S))
    sock = listening()
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    port = sock.getsockname()[1]
    Endless.taken = 0
    clients = [await asyncio.to_thread(silent_client, port, number) for number in range(CLIENTS)]
    try:
        await eventually(lambda: len(world.replicas.answers) == CLIENTS, 30)
        await eventually(lambda: all(answer.closed for answer in world.replicas.answers), 30)
        assert Endless.taken / CLIENTS < 1_000_000  # two kernel buffers, and 64 KiB of the server's
        assert world.pipeline.routing.router.ledger("r1").ongoing == 0
        await eventually(lambda: len(world.metrics.left) == CLIENTS, 30)
    finally:
        for client in clients:
            client.close()
        server.should_exit = True
        await serving
