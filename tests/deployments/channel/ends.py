"""Applications behind a private channel, and both of its ends over real sockets."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from deployments.channel.client import Connection, Exchange, connect
from deployments.channel.frames import Request
from deployments.channel.server import ChannelServer
from deployments.engines.base import ASGIApp, Message, Receive, Send

SECRET = b"between us"
REQUEST = Request("POST", "/v1/x?a=1&b=%20", [(b"x-request-id", b"r-1")], b"body")
Work = Callable[["App", Receive, Send], Awaitable[None]]


class App:
    """An application that does what a test says, and remembers what it was asked."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.scopes: list[Message] = []
        self.running = 0
        self.left = 0
        self.sent = 0
        """Bytes of bodies that were taken from it."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.running += 1
        try:
            await self._work(self, receive, send)
        finally:
            self.running -= 1

    async def says(self, send: Send, *pieces: bytes, status: int = 200, more: bool = False) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]})
        for number, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": more or number + 1 < len(pieces)})
            self.sent += len(piece)

    async def wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left += 1


async def echo(app: App, receive: Receive, send: Send) -> None:
    message = await receive()
    assert not message["more_body"]
    await app.says(send, message["body"], b"!")


async def hold(app: App, receive: Receive, send: Send) -> None:
    await app.says(send, b"first", more=True)
    await app.wait(receive)


async def silent(app: App, receive: Receive, send: Send) -> None:
    await app.wait(receive)


@asynccontextmanager
async def served(app: ASGIApp, host: str = "127.0.0.1") -> AsyncIterator[ChannelServer]:
    made = ChannelServer(app, host, SECRET)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@asynccontextmanager
async def connected(app: ASGIApp, silence_s: float = 5) -> AsyncIterator[Connection]:
    async with served(app) as made:
        connection = await connect(made.url, SECRET, silence_s)
        try:
            yield connection
        finally:
            connection.close()


async def body_of(exchange: Exchange) -> bytes:
    data = b""
    while piece := await exchange.read():
        data += piece
    return data
