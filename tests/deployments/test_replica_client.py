"""Requests to replicas over real connections, and through a fake of Ray's handle."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from deployments.errors import NoReplicaError, ReplicaLostError
from deployments.replica_client import Answer, Call, DirectReplicaClient
from deployments.replicas import Replica, ReplicaDirectory
from tests.deployments.servers import eventually, serving

SECRET = "between us"
CALL = Call("POST", "/v1/x?a=1", {"content-type": "application/json", "x-request-id": "r-1"}, b'{"x": "\xc3\xa9"}')


@dataclass
class FakeReplica:
    """What is behind one replica's port: says its pieces, then waits if it is to hang."""

    pieces: list[bytes] = field(default_factory=lambda: [b"hello"])
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    """Never ends its answer."""
    silent: bool = False
    """Never begins it."""
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    """Of the caller, one for each request: an equal one means the same connection."""
    left: int = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        assert request.transport
        self.ports.append(request.transport.get_extra_info("peername")[1])
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.method, request.raw_path, headers, await request.read()))
        try:
            return await self._answer(request)
        except asyncio.CancelledError:
            self.left += 1
            raise

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=self.status, headers=self.headers)
        if not self.silent:
            await response.prepare(request)
            for piece in self.pieces:
                await response.write(piece)
        if self.silent or self.hangs:
            await asyncio.Event().wait()
        return response


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
async def fleet_of(*urls: str, handle: FakeHandle | None = None, read_timeout_s: float = 5) -> AsyncIterator[Fleet]:
    """Replicas named a, b, c after the order of their URLs, and one more that is never asked, so that suspensions show."""
    ranked = [Replica(name, url, 100, 16) for name, url in zip("abc", urls, strict=False)]
    directory = ReplicaDirectory()
    directory.replace([*ranked, Replica("z", "http://127.0.0.1:1", 100, 16)])
    handle = handle or FakeHandle(RuntimeError("no handle here"))
    client = DirectReplicaClient(directory, handle, SECRET, read_timeout_s)
    try:
        yield Fleet(directory, handle, client, ranked)
    finally:
        await client.close()


def unused_url() -> str:
    """Nobody listens there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


@asynccontextmanager
async def raw_server(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    """A server that does not have to speak HTTP."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


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


# Relaying


async def test_a_request_arrives_as_it_was_sent() -> None:
    app = FakeReplica()
    async with serving(app) as url, fleet_of(url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        assert (answer.status, answer.replica, await body_of(answer)) == (200, "a", b"hello")
    ((method, target, headers, body),) = app.requests
    assert (method, target, body) == ("POST", "/v1/x?a=1", CALL.body)
    assert (headers["x-request-id"], headers["content-type"], headers["x-mygo-internal"]) == ("r-1", "application/json", SECRET)


@pytest.mark.parametrize("pieces", [[b""], [b"data: x\n\n", b"\x00\xff", b"\r\n"], [b"x" * 3_000_000], [b"y"] * 500])
@pytest.mark.parametrize("headers", [{}, {"content-encoding": "gzip"}, {"content-type": "text/plain; charset=utf-16"}])
async def test_bytes_are_relayed_as_they_are(pieces: list[bytes], headers: dict[str, str]) -> None:
    async with serving(FakeReplica(pieces, headers=headers)) as url, fleet_of(url) as fleet:
        assert await body_of(await fleet.client.send(CALL, fleet.ranked)) == b"".join(pieces)


async def test_no_replica_is_asked_for_compressed_bytes() -> None:
    app = FakeReplica()
    async with serving(app) as url, fleet_of(url) as fleet:
        await body_of(await fleet.client.send(CALL, fleet.ranked))
    assert app.requests[0][2].get("accept-encoding") == "identity"


async def test_a_piece_arrives_before_the_answer_ends() -> None:
    async with serving(FakeReplica([b"first"], hangs=True)) as url, fleet_of(url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        assert await anext(answer.chunks()) == b"first"
        await answer.close()


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_an_error_of_the_engine_is_its_answer(status: int) -> None:
    app, other = FakeReplica([b"no"], status), FakeReplica()
    async with serving(app) as url, serving(other) as other_url, fleet_of(url, other_url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        assert (answer.status, answer.replica, await body_of(answer)) == (status, "a", b"no")
        assert fleet.suspended == set()
    assert other.requests == []


async def test_a_redirect_is_not_followed() -> None:
    other = FakeReplica()
    async with serving(other) as elsewhere:
        app = FakeReplica([], 307, {"location": elsewhere})
        async with serving(app) as url, fleet_of(url) as fleet:
            answer = await fleet.client.send(CALL, fleet.ranked)
            assert answer.status == 307
            await answer.close()
    assert other.requests == []


# Connections


async def test_connections_are_kept_for_the_next_request() -> None:
    app = FakeReplica()
    async with serving(app) as url, fleet_of(url) as fleet:
        for _ in range(5):
            await body_of(await fleet.client.send(CALL, fleet.ranked))
    assert len(set(app.ports)) == 1


async def test_requests_at_the_same_time_do_not_wait_for_each_other() -> None:
    app = FakeReplica(hangs=True)
    async with serving(app) as url, fleet_of(url) as fleet:
        answers = await asyncio.gather(*(fleet.client.send(CALL, fleet.ranked) for _ in range(120)))
        assert len(set(app.ports)) == 120
        for answer in answers:
            await answer.close()
        await eventually(lambda: app.left == 120)


async def test_closing_an_answer_early_aborts_it_in_the_engine() -> None:
    app = FakeReplica(hangs=True)
    async with serving(app) as url, fleet_of(url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        await anext(answer.chunks())
        assert app.left == 0
        await answer.close()
        await answer.close()
        await eventually(lambda: app.left == 1)


async def test_giving_up_the_wait_for_an_answer_aborts_it_in_the_engine() -> None:
    app = FakeReplica(silent=True)
    async with serving(app) as url, fleet_of(url) as fleet:
        sending = asyncio.create_task(fleet.client.send(CALL, fleet.ranked))
        await eventually(lambda: bool(app.requests))
        sending.cancel()
        await eventually(lambda: app.left == 1)
        assert fleet.suspended == set()
        assert fleet.handle.calls == []


# Spilling


async def test_a_replica_that_refuses_connections_is_passed_over() -> None:
    app = FakeReplica()
    async with serving(app) as url, fleet_of(unused_url(), url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        assert (answer.replica, await body_of(answer)) == ("b", b"hello")
        assert fleet.suspended == {"a"}
    assert app.requests[0][3] == CALL.body


async def test_a_replica_that_says_so_is_passed_over() -> None:
    draining, app = FakeReplica([b"draining"], 503, {"x-mygo-retry": "1"}), FakeReplica()
    async with serving(draining) as draining_url, serving(app) as url, fleet_of(draining_url, url) as fleet:
        assert await answering(fleet, fleet.ranked) == "b"
        assert fleet.suspended == {"a"}


async def test_a_replica_that_closes_without_a_byte_is_passed_over() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with raw_server(close) as dying, serving(FakeReplica()) as url, fleet_of(dying, url) as fleet:
        assert await answering(fleet, fleet.ranked) == "b"
        assert fleet.suspended == {"a"}


async def test_a_replica_that_does_not_speak_http_is_passed_over() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"what?\r\n\r\n")
        writer.close()

    async with raw_server(babble) as strange, serving(FakeReplica()) as url, fleet_of(strange, url) as fleet:
        assert await answering(fleet, fleet.ranked) == "b"


async def test_replicas_are_asked_in_their_order() -> None:
    apps = [FakeReplica(headers={"x-mygo-retry": "1"}), FakeReplica(), FakeReplica()]
    async with serving(apps[0]) as a, serving(apps[1]) as b, serving(apps[2]) as c, fleet_of(a, b, c) as fleet:
        assert await answering(fleet, fleet.ranked) == "b"
        assert await answering(fleet, fleet.ranked[::-1]) == "c"
    assert [len(app.requests) for app in apps] == [1, 1, 1]


# Silence


async def test_a_silent_replica_is_not_asked_twice() -> None:
    app, other = FakeReplica(silent=True), FakeReplica()
    async with serving(app) as url, serving(other) as other_url, fleet_of(url, other_url, read_timeout_s=0.05) as fleet:
        with pytest.raises(ReplicaLostError):
            await fleet.client.send(CALL, fleet.ranked)
        assert (other.requests, fleet.handle.calls) == ([], [])
        await eventually(lambda: app.left == 1)


async def test_silence_within_an_answer_loses_it() -> None:
    async with serving(FakeReplica([b"first"], hangs=True)) as url, fleet_of(url, read_timeout_s=0.05) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        chunks = answer.chunks()
        assert await anext(chunks) == b"first"
        with pytest.raises(ReplicaLostError):
            await anext(chunks)
        await answer.close()


async def test_an_answer_that_breaks_off_is_lost() -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await writer.drain()
        writer.close()

    async with raw_server(break_off) as url, fleet_of(url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        chunks = answer.chunks()
        assert await anext(chunks) == b"first"
        with pytest.raises(ReplicaLostError):
            await anext(chunks)
        await answer.close()


# Ray's handle


async def test_without_a_direct_answer_the_handle_gives_one() -> None:
    handle = FakeHandle((200, {"content-type": "x"}), b"one", b"two")
    async with fleet_of(unused_url(), unused_url(), handle=handle) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        assert (answer.status, answer.replica, await body_of(answer)) == (200, "", b"onetwo")
        assert fleet.suspended == {"a", "b"}
    assert handle.calls == [("POST", "/v1/x?a=1", dict(CALL.headers), CALL.body)]


async def test_the_handle_is_not_given_the_secret() -> None:
    handle = FakeHandle((200, {}))
    async with fleet_of(handle=handle) as fleet:
        await fleet.client.send(CALL, [])
    assert SECRET not in str(handle.calls)


FAILING = {"error": [RuntimeError("no replicas")], "end": [], "retry": [(503, {"x-mygo-retry": "1"}), b"draining"]}


@pytest.mark.parametrize("items", FAILING.values(), ids=FAILING.keys())
async def test_when_the_handle_fails_too_there_is_no_replica(items: list[Any]) -> None:
    async with fleet_of(unused_url(), handle=FakeHandle(*items)) as fleet:
        with pytest.raises(NoReplicaError):
            await fleet.client.send(CALL, fleet.ranked)


async def test_a_handle_that_hangs_is_given_up_and_its_request_cancelled() -> None:
    async with fleet_of(handle=FakeHandle(None), read_timeout_s=0.02) as fleet:
        with pytest.raises(ReplicaLostError):
            await asyncio.wait_for(fleet.client.send(CALL, []), 5)
        assert fleet.handle.cancelled


async def test_a_client_that_leaves_while_the_handle_waits_cancels_the_request() -> None:
    async with fleet_of(handle=FakeHandle(None)) as fleet:
        sending = asyncio.create_task(fleet.client.send(CALL, []))
        await eventually(lambda: bool(fleet.handle.calls))
        sending.cancel()
        await asyncio.wait([sending])
        assert sending.cancelled()
        assert fleet.handle.cancelled


async def test_closing_the_handles_answer_cancels_the_request() -> None:
    async with fleet_of(handle=FakeHandle((200, {}), b"first", None)) as fleet:
        answer = await fleet.client.send(CALL, [])
        assert await anext(answer.chunks()) == b"first"
        await answer.close()
        assert fleet.handle.cancelled


async def test_a_handle_that_fails_within_an_answer_loses_it() -> None:
    async with fleet_of(handle=FakeHandle((200, {}), b"first", RuntimeError("actor died"))) as fleet:
        answer = await fleet.client.send(CALL, [])
        with pytest.raises(ReplicaLostError):
            await body_of(answer)


# Probing


async def test_a_probe_asks_one_replica_and_no_other() -> None:
    app = FakeReplica([b"{}"])
    async with serving(app) as url, fleet_of(url) as fleet:
        assert await body_of(await fleet.client.probe(CALL, fleet.ranked[0])) == b"{}"
        dead = Replica("dead", unused_url(), 100, 16)
        with pytest.raises(NoReplicaError):
            await fleet.client.probe(CALL, dead)
        assert (fleet.suspended, fleet.handle.calls) == (set(), [])


async def test_a_probe_that_is_given_up_leaves_no_request_behind() -> None:
    app = FakeReplica(silent=True)
    async with serving(app) as url, fleet_of(url) as fleet:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fleet.client.probe(CALL, fleet.ranked[0]), 0.05)
        await eventually(lambda: app.left == 1)
