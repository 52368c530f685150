"""Replicas that answer as a test says, reached directly or by a handle."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from deployments.channel.server import ChannelServer
from deployments.engines.base import Message, Receive, Send
from deployments.replica_client import Answer, Call, DirectReplicaClient
from deployments.replicas import Replica, ReplicaDirectory

SECRET = "between us"
CALL = Call("POST", "/v1/x?a=1", {"content-type": "application/json", "x-request-id": "r-1"}, b'{"x": "\xc3\xa9"}')


@dataclass
class FakeReplica:
    """The application behind one replica's channel: says its pieces, then waits if it is to hang."""

    pieces: list[bytes] = field(default_factory=lambda: [b"hello"])
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    """Never ends its answer."""
    silent: bool = False
    """Never begins it."""
    breaks: bool = False
    """Fails after its last piece."""
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    left: int = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = scope["query_string"].decode()
        target = scope["path"] + (f"?{query}" if query else "")
        self.requests.append((scope["method"], target, headers, (await receive())["body"]))
        if not self.silent:
            raw = [(name.encode(), value.encode()) for name, value in self.headers.items()]
            await send({"type": "http.response.start", "status": self.status, "headers": raw})
            for piece in self.pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        if self.breaks:
            raise RuntimeError
        if self.silent or self.hangs:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left += 1
        else:
            await send({"type": "http.response.body"})


class FakeHandle:
    """Ray's handle: a relay whose items are (status, headers) and chunks; `None` among them waits for ever."""

    def __init__(self, *items: Any) -> None:
        self._items = items
        self.calls: list[tuple[Any, ...]] = []
        self.cancelled = 0

    def options(self, *, stream: bool) -> Any:
        assert stream
        return self

    @property
    def relay(self) -> Any:
        return self

    def remote(self, *args: Any) -> Any:
        self.calls.append(args)
        return self._Stream(self, self._items)

    class _Stream:
        def __init__(self, handle: "FakeHandle", items: tuple[Any, ...]) -> None:
            self._handle = handle
            self._items = iter(items)

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            item = next(self._items, StopAsyncIteration())
            if item is None:
                await asyncio.Event().wait()
            if isinstance(item, BaseException):
                raise item
            return item

        def cancel(self) -> None:
            self._handle.cancelled += 1


@dataclass
class Fleet:
    """A client, and the replicas that it knows."""

    directory: ReplicaDirectory
    handle: FakeHandle
    client: DirectReplicaClient
    ranked: list[Replica]

    @property
    def suspended(self) -> set[str]:
        return {replica.id for replica in self.ranked} - {replica.id for replica in self.directory.replicas}


@asynccontextmanager
async def fleet_of(*urls: str, handle: FakeHandle | None = None, silence_s: float = 5) -> AsyncIterator[Fleet]:
    """Replicas named a, b, c after the order of their URLs, and one more that is never asked, so that suspensions show."""
    ranked = [Replica(name, url, 100, 16) for name, url in zip("abc", urls, strict=False)]
    directory = ReplicaDirectory()
    directory.replace([*ranked, Replica("z", "tcp://127.0.0.1:1", 100, 16)])
    handle = handle or FakeHandle(RuntimeError("no handle here"))
    client = DirectReplicaClient(directory, handle, SECRET, silence_s)
    try:
        yield Fleet(directory, handle, client, ranked)
    finally:
        await client.close()


def unused_url() -> str:
    """Nobody listens there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{sock.getsockname()[1]}"


@asynccontextmanager
async def serving(app: FakeReplica, secret: str = SECRET) -> AsyncIterator[str]:
    """The URL of its channel."""
    server = ChannelServer(app, "127.0.0.1", secret.encode())
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


@asynccontextmanager
async def raw_server(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    """A server that does not have to be a replica."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def body_of(answer: Answer) -> bytes:
    try:
        return b"".join([chunk async for chunk in answer.chunks()])
    finally:
        await answer.close()


async def answering(fleet: Fleet, ranked: list[Replica]) -> str:
    """The replica that takes the request."""
    answer = await fleet.client.send(CALL, ranked)
    await body_of(answer)
    return answer.replica
