"""Both ends of a private channel over real sockets, with an ASGI application behind it."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from deployments.channel import client, server
from deployments.channel.asgi import relayed
from deployments.channel.client import Connection, Connections, Exchange, connect
from deployments.channel.frames import MAX_PAYLOAD, NONCE_BYTES, WINDOW, Decoder, Kind, Request, Start, frame, pack
from deployments.channel.server import ChannelServer
from deployments.engines.base import ASGIApp, Message, Receive, Send
from deployments.errors import ChannelError, OversizeError, SilentError
from tests.deployments.servers import eventually

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


# Exchanges


async def test_a_request_arrives_as_it_was_sent_and_its_answer_comes_back() -> None:
    app = App(echo)
    async with connected(app) as connection:
        exchange = connection.request(REQUEST)
        assert await exchange.start() == Start(200, [(b"a", b"b")])
        assert await body_of(exchange) == b"body!"
        assert await exchange.read() == b""
        await eventually(lambda: len(connection) == 0)
    (scope,) = app.scopes
    assert (scope["method"], scope["path"], scope["query_string"]) == ("POST", "/v1/x", b"a=1&b=%20")
    assert scope["headers"] == [(b"x-request-id", b"r-1")]


@pytest.mark.parametrize("size", [0, 1, WINDOW, 5_000_000])
async def test_bodies_of_any_size_pass_both_ways(size: int) -> None:
    async with connected(App(echo)) as connection:
        body = os.urandom(size)
        exchange = connection.request(REQUEST._replace(body=body))
        assert await body_of(exchange) == body + b"!"


async def test_many_exchanges_share_a_connection_and_none_waits_for_another() -> None:
    async with connected(App(hold)) as connection:
        held = [connection.request(REQUEST) for _ in range(200)]
        for exchange in held:
            assert await exchange.read() == b"first"
        assert len(connection) == 200
        for exchange in held:
            exchange.close()
        assert len(connection) == 0


async def test_what_has_come_is_read_at_once() -> None:
    async def chatter(app: App, receive: Receive, send: Send) -> None:
        await app.says(send, *(b"%d," % number for number in range(100)))

    app = App(chatter)
    async with connected(app) as connection:
        exchange = connection.request(REQUEST)
        await eventually(lambda: app.sent > 0 and app.running == 0)
        await asyncio.sleep(0.05)
        assert await exchange.read() == b"".join(b"%d," % number for number in range(100))


async def test_an_application_that_fails_before_its_answer() -> None:
    async def fail(app: App, receive: Receive, send: Send) -> None:
        raise RuntimeError

    async with connected(App(fail)) as connection:
        exchange = connection.request(REQUEST)
        with pytest.raises(ChannelError):
            await exchange.start()
        assert connection.is_open


async def test_an_application_that_fails_within_its_answer() -> None:
    async def fail(app: App, receive: Receive, send: Send) -> None:
        await app.says(send, b"first", more=True)
        raise RuntimeError

    async with connected(App(fail)) as connection:
        exchange = connection.request(REQUEST)
        assert await exchange.read() == b"first"
        with pytest.raises(ChannelError):
            await exchange.read()


async def test_an_application_that_fails_after_its_answer_has_answered() -> None:
    async def fail(app: App, receive: Receive, send: Send) -> None:
        await app.says(send, b"all")
        raise RuntimeError

    async with connected(App(fail)) as connection:
        exchange = connection.request(REQUEST)
        assert (await exchange.start()).status == 200
        assert await body_of(exchange) == b"all"


# Leaving


async def test_closing_an_exchange_tells_the_application() -> None:
    app = App(hold)
    async with connected(app) as connection:
        exchange = connection.request(REQUEST)
        await exchange.read()
        exchange.close()
        exchange.close()
        await eventually(lambda: (app.left, app.running) == (1, 0))
        assert connection.is_open


@pytest.mark.parametrize("grace_s", [0, 0.05])
async def test_an_application_that_does_not_hear_is_cancelled_after_a_while(grace_s: float) -> None:
    async def deaf(app: App, receive: Receive, send: Send) -> None:
        await app.says(send, b"first", more=True)
        await asyncio.Event().wait()

    app = App(deaf)
    made = ChannelServer(app, "127.0.0.1", SECRET, grace_s)
    await made.start()
    connection = await connect(made.url, SECRET, 5)
    exchange = connection.request(REQUEST)
    await exchange.read()
    exchange.close()
    await eventually(lambda: app.running == 0, 2)
    connection.close()
    await made.stop()


async def test_a_client_that_is_gone_leaves_nothing_behind() -> None:
    app = App(hold)
    async with served(app) as made:
        connection = await connect(made.url, SECRET, 5)
        for exchange in [connection.request(REQUEST) for _ in range(20)]:
            await exchange.read()
        connection.close()
        await eventually(lambda: (app.left, app.running, len(made.peers)) == (20, 0, 0))


async def test_ten_thousand_that_leave_at_any_moment_leave_nothing_behind() -> None:
    app = App(hold)
    async with served(app) as made:
        connection = await connect(made.url, SECRET, 5)

        async def leave(number: int) -> None:
            exchange = connection.request(REQUEST)
            if number % 3:
                await exchange.start()
            if number % 3 == 2:
                await exchange.read()
            exchange.close()

        tasks = len(asyncio.all_tasks())
        for start in range(0, 10_000, 500):
            await asyncio.gather(*(leave(number) for number in range(start, start + 500)))
        await eventually(lambda: app.running == 0, 20)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks, 20)
        assert len(connection) == 0
        (peer,) = made.peers
        assert peer._exchanges == {}
        connection.close()


async def test_when_the_server_goes_every_exchange_is_lost() -> None:
    app = App(hold)
    async with served(app) as made:
        connection = await connect(made.url, SECRET, 5)
        exchanges = [connection.request(REQUEST) for _ in range(3)]
        for exchange in exchanges:
            await exchange.read()
        await made.stop()
        for exchange in exchanges:
            with pytest.raises(ChannelError):
                await exchange.read()
        assert not connection.is_open
        with pytest.raises(ChannelError):
            connection.request(REQUEST)
        await eventually(lambda: app.running == 0)


async def test_a_stop_lets_what_was_written_arrive() -> None:
    app = App(echo)
    async with served(app) as made:
        connection = await connect(made.url, SECRET, 5)
        exchange = connection.request(REQUEST._replace(body=b"x" * 200_000))
        await eventually(lambda: bool(app.scopes))
        await made.drain(5)
        await made.stop()
        assert await body_of(exchange) == b"x" * 200_000 + b"!"


async def test_a_drain_has_a_limit_and_takes_no_connections() -> None:
    async with served(App(hold)) as made:
        connection = await connect(made.url, SECRET, 5)
        held = connection.request(REQUEST)
        await held.start()
        await asyncio.wait_for(made.drain(0.05), 5)
        assert await held.read() == b"first"
        with pytest.raises(ChannelError):
            await connect(made.url, SECRET, 5)
        connection.close()


async def test_what_no_frame_can_hold_is_refused_and_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_PAYLOAD", 1000)
    async with connected(App(hold)) as connection:
        held = connection.request(REQUEST)
        await held.start()
        with pytest.raises(OversizeError):
            connection.request(REQUEST._replace(body=b"x" * 1001))
        assert await held.read() == b"first"
        held.close()


async def test_a_server_that_does_not_read_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_UNREAD", 100_000)
    async with connected(App(silent)) as connection:
        connection.pause_writing()  # as the transport does past the limit
        with pytest.raises(ChannelError):
            connection.request(REQUEST)
        connection.resume_writing()
        connection.request(REQUEST).close()


async def test_silence_ends_one_exchange_and_not_the_connection() -> None:
    app = App(silent)
    async with connected(app, silence_s=0.05) as connection:
        exchange = connection.request(REQUEST)
        with pytest.raises(SilentError):
            await exchange.start()
        await eventually(lambda: app.left == 1)
        assert connection.is_open


async def test_a_reader_that_takes_its_time_is_not_silence() -> None:
    async with connected(App(hold), silence_s=0.05) as connection:
        exchange = connection.request(REQUEST)
        await exchange.start()
        await asyncio.sleep(0.2)
        assert await exchange.read() == b"first"


# Flow


async def test_a_slow_reader_holds_up_its_own_writer_and_no_other() -> None:
    async def flood(app: App, receive: Receive, send: Send) -> None:
        await app.says(send, *[b"x" * 10_000] * 1000)

    app = App(flood)
    async with connected(app) as connection:
        slow = connection.request(REQUEST)
        await slow.start()
        await eventually(lambda: app.sent >= WINDOW)
        await asyncio.sleep(0.05)
        held = app.sent
        assert held <= WINDOW + 20_000
        quick = connection.request(REQUEST)
        assert len(await body_of(quick)) == 10_000_000
        assert app.sent == held + 10_000_000
        assert len(await body_of(slow)) == 10_000_000


async def test_one_piece_larger_than_the_window_passes() -> None:
    async def piece(app: App, receive: Receive, send: Send) -> None:
        await app.says(send, b"y" * (3 * WINDOW + 7))

    async with connected(App(piece)) as connection:
        assert await body_of(connection.request(REQUEST)) == b"y" * (3 * WINDOW + 7)


async def test_a_writer_that_is_held_up_hears_that_its_reader_is_gone() -> None:
    async def flood(app: App, receive: Receive, send: Send) -> None:
        await app.says(send, b"x" * (10 * WINDOW), b"more", more=True)
        await app.wait(receive)

    app = App(flood)
    async with connected(app) as connection:
        exchange = connection.request(REQUEST)
        await exchange.start()
        exchange.close()
        await eventually(lambda: app.running == 0)


# Who is who


async def raw(made: ChannelServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = urlsplit(made.url)
    return await asyncio.open_connection(where.hostname, where.port)


def test_no_server_without_a_secret() -> None:
    with pytest.raises(ChannelError):
        ChannelServer(App(echo), "127.0.0.1", b"")


@pytest.mark.parametrize("secret", [b"wrong", SECRET + b"x", SECRET[:-1]])
async def test_who_does_not_know_the_secret_reaches_nothing(secret: bytes) -> None:
    app = App(echo)
    async with served(app) as made:
        with pytest.raises(ChannelError):
            await connect(made.url, secret, 5)
        await eventually(lambda: not made.strangers)
    assert app.scopes == []


@pytest.mark.parametrize(
    "said",
    [
        frame(Kind.REQUEST, 1, pack(REQUEST)),
        frame(Kind.WELCOME, 0, b"x" * 32),
        frame(Kind.PROOF, 0, b""),
        frame(Kind.PROOF, 0, bytes(64)),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100,
    ],
)
async def test_nothing_is_done_for_strangers(said: bytes) -> None:
    app = App(echo)
    async with served(app) as made:
        reader, writer = await raw(made)
        writer.write(said)
        await reader.read()
        writer.close()
        assert (app.scopes, made.peers) == ([], set())


async def test_a_proof_cannot_be_said_again() -> None:
    async with served(App(echo)) as made:
        heard: list[bytes] = []

        class Spy(Connection):
            def write(self, data: bytes) -> None:
                heard.append(data)
                super().write(data)

        where = urlsplit(made.url)
        connecting = asyncio.get_running_loop().create_connection
        _, spied = await connecting(lambda: Spy(made.url, SECRET, 5), where.hostname or "", where.port or 0)
        await spied.ready
        spied.close()
        reader, writer = await raw(made)
        writer.write(heard[0])
        hello = await reader.read()
        assert len(hello) <= 9 + NONCE_BYTES
        writer.close()


async def test_strangers_that_say_nothing_are_cut_off_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GREETING_LIMIT_S", 0.2)
    monkeypatch.setattr(server, "MAX_STRANGERS", 3)
    async with served(App(echo)) as made:
        waiting = [await raw(made) for _ in range(5)]
        await eventually(lambda: len(made.strangers) <= 3)
        honest = await connect(made.url, SECRET, 5)  # however many others there are
        assert await body_of(honest.request(REQUEST)) == b"body!"
        honest.close()
        for reader, writer in waiting:
            await reader.read()
            writer.close()
        assert made.strangers == {}
        connection = await connect(made.url, SECRET, 5)
        assert await body_of(connection.request(REQUEST)) == b"body!"
        await asyncio.sleep(0.25)
        assert connection.is_open
        connection.close()


async def test_a_server_must_know_the_secret_too() -> None:
    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(Kind.HELLO, 0, bytes(NONCE_BYTES)))
        await reader.read(100)
        writer.write(frame(Kind.WELCOME, 0, bytes(32)))
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    left = asyncio.Event()
    listening = await asyncio.start_server(impostor, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    with pytest.raises(ChannelError):
        await connect(f"tcp://127.0.0.1:{port}", SECRET, 5)
    await left.wait()
    listening.close()


STRANGE = [
    frame(Kind.START, 1),
    frame(Kind.HELLO),
    frame(99, 1),  # type: ignore[arg-type]
    frame(Kind.REQUEST, 9, b"no"),
    frame(Kind.CREDIT, 1, b"x"),
    frame(Kind.REQUEST, 9, pack(REQUEST)) * 2,
]


@pytest.mark.parametrize("said", STRANGE)
async def test_a_client_that_cannot_be_understood_is_cut_off(said: bytes) -> None:
    async with connected(App(hold)) as connection:
        held = connection.request(REQUEST._replace(body=b"2"))
        await held.start()
        connection.write(said)
        with pytest.raises(ChannelError):
            await body_of(held)
        assert not connection.is_open


async def test_a_frame_that_is_too_long_is_refused_by_its_length() -> None:
    decoder = Decoder()
    decoder.limit = MAX_PAYLOAD
    with pytest.raises(ChannelError):
        decoder.feed((MAX_PAYLOAD + 1).to_bytes(4, "big") + bytes(5))


# Sockets


async def test_small_frames_do_not_wait_for_more_bytes() -> None:
    async with served(App(echo)) as made:
        connection = await connect(made.url, SECRET, 5)
        (peer,) = made.peers
        for end in (peer._transport, connection._transport):
            assert end.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.close()


async def test_a_port_of_its_own_on_its_host_alone() -> None:
    async with served(App(echo)) as first, served(App(echo)) as second:
        assert first.url != second.url
        assert first._socket.getsockname()[0] == "127.0.0.1"
        assert not os.get_inheritable(first._socket.fileno())


async def test_an_ipv6_host() -> None:
    try:
        made = ChannelServer(App(echo), "::1", SECRET)
    except OSError:
        pytest.skip("this machine has no IPv6")
    await made.start()
    connection = await connect(made.url, SECRET, 5)
    assert await body_of(connection.request(REQUEST)) == b"body!"
    connection.close()
    await made.stop()


# Several servers


async def test_a_connection_is_shared_and_made_anew_when_it_is_lost() -> None:
    connections = Connections(SECRET, 5)
    async with served(App(echo)) as made:
        first, second = await asyncio.gather(connections.to(made.url), connections.to(made.url))
        assert first is second is await connections.to(made.url)
        first.close()
        third = await connections.to(made.url)
        assert third is not first
        assert await body_of(third.request(REQUEST)) == b"body!"
    connections.close()


async def test_connections_to_servers_that_are_gone_are_forgotten() -> None:
    connections = Connections(SECRET, 5)
    for _ in range(3):
        async with served(App(echo)) as made:
            gone = await connections.to(made.url)
        await eventually(lambda: not gone.is_open)  # noqa: B023
    assert len(connections._open) == 1
    connections.close()


async def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_TIMEOUT_S", 0.05)
    accepted: list[asyncio.StreamWriter] = []
    listening = await asyncio.start_server(lambda reader, writer: accepted.append(writer), "127.0.0.1", 0)
    connections = Connections(SECRET, 5)
    with pytest.raises(ChannelError):
        await connections.to(f"tcp://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    listening.close()
    for writer in accepted:
        writer.close()


# In the same process


async def test_an_application_of_this_process_is_relayed_piece_by_piece() -> None:
    app = App(hold)
    async with relayed(app, REQUEST) as (start, chunks):
        assert start.status == 200
        assert await anext(chunks) == b"first"
    assert app.running == 0


async def test_a_relayed_application_that_fails() -> None:
    async def fail(app: App, receive: Receive, send: Send) -> None:
        await app.says(send, b"first", more=True)
        raise RuntimeError

    async with relayed(App(fail), REQUEST) as (_, chunks):
        with pytest.raises(ChannelError):
            assert [chunk async for chunk in chunks]

    async def fail_at_once(app: App, receive: Receive, send: Send) -> None:
        raise RuntimeError

    with pytest.raises(ChannelError):
        async with relayed(App(fail_at_once), REQUEST):
            pass
