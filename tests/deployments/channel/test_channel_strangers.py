"""Who may use a private channel, what is done with others, and the sockets it uses."""

import asyncio
import os
import socket
from urllib.parse import urlsplit

import pytest

from deployments.channel import server
from deployments.channel.client import Connection, connect
from deployments.channel.frames import MAX_PAYLOAD, NONCE_BYTES, Decoder, Kind, frame, pack
from deployments.channel.server import ChannelServer
from deployments.errors import ChannelError
from tests.deployments.channel.ends import REQUEST, SECRET, App, body_of, connected, echo, hold, served
from tests.deployments.servers import eventually

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
