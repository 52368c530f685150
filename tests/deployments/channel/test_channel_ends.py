"""Clients that leave, servers that stop, silence, and connections that are made anew."""

import asyncio

import pytest

from deployments.channel import client
from deployments.channel.client import Connections, connect
from deployments.channel.frames import WINDOW
from deployments.channel.server import ChannelServer
from deployments.engines.base import Receive, Send
from deployments.errors import ChannelError, OversizeError, SilentError
from tests.deployments.channel.ends import REQUEST, SECRET, App, body_of, connected, echo, hold, served, silent
from tests.deployments.servers import eventually

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


async def test_two_hundred_that_read_nothing_hold_little_and_hold_up_nobody() -> None:
    async def endless(app: App, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        if body == b"short":
            return await app.says(send, b"done")
        await app.says(send, *[b"x" * 10_000] * 2000, more=True)  # 4 GB, all together
        return await app.wait(receive)

    app = App(endless)
    async with connected(app) as connection:
        silent = [connection.request(REQUEST._replace(body=b"endless")) for _ in range(200)]
        before = -1
        while before < app.sent:  # it stops
            before = app.sent
            await asyncio.sleep(0.1)
        assert 200 * (WINDOW - 10_000) <= app.sent <= 200 * (WINDOW + 10_000)
        assert await body_of(connection.request(REQUEST._replace(body=b"short"))) == b"done"
        for exchange in silent:
            exchange.close()
        await eventually(lambda: app.running == 0)


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
