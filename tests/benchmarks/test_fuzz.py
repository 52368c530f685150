"""The fuzzer makes the same bytes again, and sees what is wrong."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.fuzz import wire
from benchmarks.fuzz.bytes_part import make_case
from benchmarks.fuzz.oracle import Secrets, answer_faults, faults
from benchmarks.fuzz.requests import Tenant, draw
from benchmarks.fuzz.wire import Answer, Exchange, exchange, is_whole_request, read_answers
from benchmarks.fuzz.world import PLACES

ERROR = b'{"error":{"message":"m","type":"t","param":null,"code":null}}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def tenant(name: str) -> Tenant:
    ids = {kind: f"{kind}-{name}" for kind in ("store", "file", "batch", "spare", "entry", "key")}
    return Tenant(name, f"key{name}", "m", {place: f"zq{name}{place}" for place in PLACES}, ids)


@pytest.fixture
def world() -> Any:
    ada, bob, ops = (tenant(name) for name in ("ada", "bob", "ops"))
    for each in (ada, bob, ops):
        each.others = [other for other in (ada, bob, ops) if other is not each]
    ops.is_admin = True
    return SimpleNamespace(tenants=[ada, bob], ops=ops)


def test_a_number_makes_the_same_bytes_again(world: Any) -> None:
    cases = [make_case(world, 1, number) for number in range(400)]
    assert cases == [make_case(world, 1, number) for number in range(400)]
    assert cases != [make_case(world, 2, number) for number in range(400)]
    assert {case.kind for case in cases} == {"plain", "damaged", "pipelined", "smuggled", "socket"}
    assert len({b"".join(case.pieces) for case in cases}) > 350


def test_requests_are_whole_before_they_are_damaged(world: Any) -> None:
    for number in range(500):
        assert is_whole_request(draw(world.tenants[0], random.Random(number)).raw())


@pytest.mark.parametrize(
    "raw",
    [
        GET[:-1],
        GET + b"x",
        GET.replace(b"host: x\r\n", b""),
        GET.replace(b"host", b"content-length: 1\r\nhost"),
        GET.replace(b"host", b"content-length: 0\r\ncontent-length: 0\r\nhost"),
        GET.replace(b"host", b"transfer-encoding: chunked\r\nhost"),
        GET.replace(b"GET", b"G\x00T"),
        GET.replace(b"1.1", b"2.0"),
        GET.replace(b": x", b": \x00"),
    ],
)
def test_an_answer_is_not_due_where_something_is_missing_or_wrong(raw: bytes) -> None:
    assert is_whole_request(GET)
    assert not is_whole_request(raw)


def test_answers_are_read_as_far_as_they_have_come() -> None:
    chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    answers, rest = read_answers(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + chunks + OK[:-1], [b"GET"], is_closed=False)
    assert [(answer.body, answer.is_whole) for answer in answers] == [(b"hi", True), (b"hi", True), (b"h", False)]
    assert rest == b""
    (head,), rest = read_answers(OK[:-2] + OK, [b"HEAD"], is_closed=False)[0][:1], b""
    assert (head.body, head.is_whole) == (b"", True)
    (until_end,), _ = read_answers(b"HTTP/1.0 200 OK\r\n\r\nabc", [b"GET"], is_closed=True)
    assert (until_end.body, until_end.is_whole) == (b"abc", True)


SECRETS = Secrets({"ada": ["zqada"], "bob": ["zqbob"]}, ["keyada"])


def of(answer: Answer) -> Exchange:
    return Exchange(raw=answer.body, answers=[answer])


def test_another_tenants_secret_is_a_leak_wherever_it_is() -> None:
    own, header = Answer(200, [], b"a zqada", True), Answer(200, [(b"x", b"zqbob")], b"", True)
    assert faults(of(own), ["ada"], SECRETS, is_due=True) == []
    assert faults(of(own), ["bob"], SECRETS, is_due=True) == ["leak: zqada of somebody else"]
    assert faults(of(header), ["ada"], SECRETS, is_due=True) == ["leak: zqbob of somebody else"]
    assert faults(of(Answer(200, [], b"keyada", True)), ["ada"], SECRETS, is_due=True) == ["leak: keyada of somebody else"]
    assert faults(Exchange(raw=b"zqbob"), ["ada"], SECRETS, is_due=False) == ["leak: zqbob of somebody else"]
    two = Exchange(answers=[own, Answer(200, [], b"zqbob", True)])
    assert faults(two, ["ada", "bob"], SECRETS, is_due=True) == []
    assert SECRETS.in_log(b"keyada zqbob") == ["keyada", "zqbob"]


JSON = [(b"content-type", b"application/json")]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Answer(200, JSON, b"{}", True), ""),
        (Answer(404, JSON, ERROR, True), ""),
        (Answer(400, JSON, b'{"errorCode": 400, "errorDesc": ""}', True), ""),
        (Answer(400, [], b"<html><body>400", True), ""),
        (Answer(500, JSON, ERROR, True), "status 500"),
        (Answer(503, JSON, ERROR, True), "status 503"),
        (Answer(400, [], b"Traceback", True), "without an error of our shape"),
        (Answer(400, JSON, b'{"error": "m"}', True), "without an error of our shape"),
        (Answer(200, JSON, b"{", True), "no JSON"),
        (Answer(200, [(b"x-injected", b"1")], b"", True), "injected"),
    ],
)
def test_what_is_wrong_with_an_answer(answer: Answer, found: str) -> None:
    said = answer_faults(answer)
    assert bool(said) == bool(found)
    assert not found or found in said[0]


def test_silence_and_an_early_end_are_wrong_where_an_answer_is_due() -> None:
    assert faults(Exchange(hung=True), ["ada"], SECRETS, is_due=False) == ["hang: no answer, and no end"]
    assert faults(Exchange(is_closed=True), ["ada"], SECRETS, is_due=True) == ["closed without an answer to a whole request"]
    assert faults(Exchange(is_closed=True), ["ada"], SECRETS, is_due=False) == []
    assert faults(of(Answer(200, [], b"h", False)), ["ada"], SECRETS, is_due=True) == ["the answer was cut off"]


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """A connection is closed when `serve` has ended."""

    over: list[asyncio.Future[None]] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over.append(asyncio.get_running_loop().create_future())
        mine = over[-1]
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        mine.set_result(None)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*over)


async def test_several_answers_are_read_and_no_more() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2 * len(GET))
        writer.write(OK + OK)
        await reader.read()

    async with listening(serve) as port:
        result = await exchange(port, [GET, GET], [b"GET", b"GET"], is_due=True)
    assert ([answer.body for answer in result.answers], result.hung, result.is_closed) == ([b"hi", b"hi"], False, False)


async def test_a_server_that_is_silent_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LIMIT_S", 0.05)
    monkeypatch.setattr(wire, "GRACE_S", 0.01)
    ended: list[bytes] = []
    leave = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            ended.append(await reader.read())
        await leave.wait()

    async with listening(serve) as port:
        due = await exchange(port, [GET], [b"GET"], is_due=True)
        assert ended == []  # the client has not ended its side
        half = await exchange(port, [GET[:9]], [b"GET"], is_due=False)
        leave.set()
    assert due.hung
    assert half.hung
    assert GET[:9] in ended  # it was told that nothing more comes


async def test_a_server_that_ends_does_not_hang() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(9)

    async with listening(serve) as port:
        result = await exchange(port, [GET[:9]], [b"GET"], is_due=False)
    assert (result.hung, result.is_closed, result.answers) == (False, True, [])
