"""Exchanges over a private channel: what arrives, how fast, and in the same process."""

import asyncio
import os

import pytest

from deployments.channel.asgi import relayed
from deployments.channel.frames import WINDOW, Start
from deployments.engines.base import Receive, Send
from deployments.errors import ChannelError
from tests.deployments.channel.ends import REQUEST, App, body_of, connected, echo, hold
from tests.deployments.servers import eventually

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
