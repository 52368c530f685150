"""One HTTP exchange over ASGI, with the client's side played by the test."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from deployments.engines.base import Message
from serve_app import endpoint
from serve_app.endpoint import Endpoint, Handler, HttpRequest
from serve_app.errors import NotFoundError, UnavailableError
from serve_app.exchanges import Exchanges
from serve_app.replies import SSE_TYPE, Reply, json_reply
from tests.serve_app.fakes import eventually
from tests.serve_app.recorded import RecordedMetrics

LIMIT = 100
ROUTE = "POST /x"
CANARY = "canary_7f3a9"


@dataclass
class Client:
    """Sends the body in pieces, then waits; `leave` ends the connection."""

    pieces: list[bytes] = field(default_factory=lambda: [b"{}"])
    headers: dict[str, str] = field(default_factory=dict)
    got: list[Message] = field(default_factory=list)
    broken: bool = False
    """Writing to the client fails."""

    def __post_init__(self) -> None:
        self._left = asyncio.Event()
        self._unsent = list(self.pieces)

    def leave(self) -> None:
        self._left.set()

    async def receive(self) -> Message:
        if self._unsent:
            return {"type": "http.request", "body": self._unsent.pop(0), "more_body": bool(self._unsent)}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.broken:
            raise ConnectionResetError
        self.got.append(message)

    @property
    def status(self) -> int:
        (start,) = [message for message in self.got if message["type"] == "http.response.start"]
        return int(start["status"])

    @property
    def response_headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.got[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.got[1:])

    @property
    def error(self) -> Any:
        return json.loads(self.body)["error"]


async def exchange(client: Client, handler: Handler, metrics: RecordedMetrics | None = None) -> Client:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in client.headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/x", "path_params": {"id": "7"}, "query_string": b"a=1", "headers": headers}
    await Endpoint(ROUTE, handler, LIMIT, Exchanges(metrics or RecordedMetrics()))(scope, client.receive, client.send)
    return client


async def echo(request: HttpRequest) -> Reply:
    return Reply(200, {"x-mygo-cache": "miss"}, "text/plain", request.body)


@dataclass
class Waiting:
    """A handler that waits to be cancelled."""

    cancelled: bool = False
    started: bool = False

    async def __call__(self, request: HttpRequest) -> Reply:
        self.started = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return json_reply({})


@dataclass
class Streaming:
    """A handler whose reply says one word and then waits, or raises."""

    error: Exception | None = None
    closed: int = 0

    async def __call__(self, request: HttpRequest) -> Reply:
        return Reply(200, {"x-mygo-cache": "miss"}, SSE_TYPE, self._words(), self._close)

    async def _words(self) -> AsyncIterator[bytes]:
        yield b"word"
        if self.error:
            raise self.error
        await asyncio.Event().wait()

    async def _close(self) -> None:
        self.closed += 1


async def leaves_when(client: Client, condition: Callable[[], bool]) -> None:
    await eventually(condition)
    client.leave()


# The body


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip", "x"])
async def test_a_compressed_body_is_refused_before_it_is_read(encoding: str) -> None:
    client = await exchange(Client([b"x" * LIMIT], {"content-encoding": encoding}), echo)
    assert (client.status, client.error["code"]) == (415, "unsupported_encoding")
    assert client.response_headers["accept-encoding"] == "identity"
    assert client._unsent


async def test_a_body_that_says_that_it_is_not_compressed_is_read() -> None:
    assert (await exchange(Client([b"abc"], {"content-encoding": "Identity"}), echo)).body == b"abc"


@pytest.mark.parametrize("pieces", [[b""], [b"x" * LIMIT], [b"a", b"", b"b", b"c" * (LIMIT - 2)]])
async def test_a_body_up_to_the_limit_reaches_the_handler_whole(pieces: list[bytes]) -> None:
    length = str(len(b"".join(pieces)))
    client = await exchange(Client(pieces, {"content-length": length}), echo)
    assert (client.status, client.body) == (200, b"".join(pieces))
    assert client.response_headers["content-length"] == length


async def test_a_request_as_the_handler_sees_it() -> None:
    async def handler(request: HttpRequest) -> Reply:
        return json_reply([request.path, request.path_params, request.query, request.headers["x-y"], request.id])

    client = await exchange(Client(headers={"x-y": "z", "x-request-id": "r-1"}), handler)
    assert json.loads(client.body) == ["/x", {"id": "7"}, "a=1", "z", "r-1"]


async def test_a_body_that_is_said_to_be_too_long_is_refused_unread() -> None:
    client = Client([CANARY.encode()] * 3, {"content-length": str(LIMIT + 1)})
    await exchange(client, echo)
    assert (client.status, client.error["code"]) == (413, "body_too_large")
    assert str(LIMIT) in client.error["message"]
    assert len(client._unsent) == 3


async def test_a_body_that_turns_out_too_long_is_refused_at_once() -> None:
    client = Client([b"x" * 60] * 10)
    await exchange(client, echo)
    assert (client.status, client.error["type"]) == (413, "invalid_request_error")
    assert len(client._unsent) == 8


async def test_a_short_declaration_does_not_hide_a_long_body() -> None:
    assert (await exchange(Client([b"x" * (LIMIT + 1)], {"content-length": "5"}), echo)).status == 413


@pytest.mark.parametrize("declared", [CANARY, "-1", "1.5", "", " ", "\u00b2", "0x10"])
async def test_a_length_that_is_no_number_is_refused(declared: str) -> None:
    client = await exchange(Client(headers={"content-length": declared}), echo)
    assert client.status == 400
    assert "content-length" in client.error["message"]
    assert CANARY not in client.error["message"]


async def test_a_length_of_thousands_of_digits_is_refused() -> None:
    assert (await exchange(Client(headers={"content-length": "9" * 5000}), echo)).status == 400


# Clients that leave


async def test_a_client_that_leaves_while_it_sends_is_only_counted() -> None:
    metrics, handler, client = RecordedMetrics(), Waiting(), Client([])
    client.leave()
    await exchange(client, handler, metrics)
    assert not handler.started
    assert client.got == []
    assert (metrics.left, metrics.requests) == ([ROUTE], [(ROUTE, 499, "")])


async def test_a_body_that_never_comes_does_not_hold_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BODY_TIMEOUT_S", 0.02)
    client = Client([])
    await asyncio.wait_for(exchange(client, echo), 5)
    assert (client.status, client.error["code"], client.response_headers["connection"]) == (408, "body_timeout", "close")


async def test_a_client_that_leaves_while_it_waits_cancels_the_handler() -> None:
    metrics, handler, client = RecordedMetrics(), Waiting(), Client()
    await asyncio.gather(exchange(client, handler, metrics), leaves_when(client, lambda: handler.started))
    assert handler.cancelled
    assert client.got == []
    assert (metrics.left, metrics.requests) == ([ROUTE], [(ROUTE, 499, "")])


async def test_a_client_that_leaves_in_mid_stream_closes_the_reply() -> None:
    metrics, handler, client = RecordedMetrics(), Streaming(), Client()
    await asyncio.gather(exchange(client, handler, metrics), leaves_when(client, lambda: len(client.got) == 2))
    assert handler.closed == 1
    assert client.body == b"word"
    assert (metrics.left, metrics.requests) == ([ROUTE], [(ROUTE, 499, "miss")])


async def test_a_client_that_cannot_be_written_to_has_left() -> None:
    metrics, handler = RecordedMetrics(), Streaming()
    await exchange(Client(broken=True), handler, metrics)
    assert handler.closed == 1
    assert metrics.left == [ROUTE]


async def test_an_exchange_that_is_cancelled_cancels_its_handler() -> None:
    handler = Waiting()
    running = asyncio.create_task(exchange(Client(), handler))
    await eventually(lambda: handler.started)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert handler.cancelled


async def test_nothing_is_left_running_after_an_exchange() -> None:
    before = asyncio.all_tasks()
    await exchange(Client(), echo)
    handler, client = Waiting(), Client()
    await asyncio.gather(exchange(client, handler), leaves_when(client, lambda: handler.started))
    assert asyncio.all_tasks() == before


# Errors


async def test_an_error_of_the_handler_is_answered() -> None:
    async def handler(request: HttpRequest) -> Reply:
        raise NotFoundError("No.", param="model", code="c")

    metrics = RecordedMetrics()
    client = await exchange(Client(), handler, metrics)
    assert client.status == 404
    assert client.error == {"message": "No.", "type": "invalid_request_error", "param": "model", "code": "c"}
    assert client.response_headers["content-type"] == "application/json"
    assert metrics.requests == [(ROUTE, 404, "")]


async def test_an_unexpected_error_is_answered_without_its_text_and_logged_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: HttpRequest) -> Reply:
        raise RuntimeError(CANARY)

    with caplog.at_level(logging.ERROR, "ray.serve"):
        client = await exchange(Client(headers={"x-request-id": "r-1"}), handler)
    assert (client.status, client.error["type"], client.error["code"]) == (500, "server_error", "internal_error")
    assert CANARY not in client.body.decode()
    assert CANARY in caplog.text
    assert caplog.records[0].__dict__["id"] == "r-1"


async def test_those_who_may_try_again_are_told_when() -> None:
    async def handler(request: HttpRequest) -> Reply:
        raise UnavailableError("Later.")

    client = await exchange(Client(), handler)
    assert (client.status, client.response_headers["retry-after"]) == (503, "1")


async def test_an_error_in_mid_stream_reaches_the_server_and_closes_the_reply() -> None:
    """The server then breaks the connection: the client must not take what it has for the whole."""
    metrics, handler, client = RecordedMetrics(), Streaming(RuntimeError(CANARY)), Client()
    with pytest.raises(RuntimeError):
        await exchange(client, handler, metrics)
    assert handler.closed == 1
    assert client.body == b"word"
    assert metrics.requests == [(ROUTE, 200, "miss")]


# What is sent, counted and logged


async def test_a_stream_is_not_held_back_by_proxies() -> None:
    handler, client = Streaming(), Client()
    await asyncio.gather(exchange(client, handler), leaves_when(client, lambda: len(client.got) == 2))
    headers = client.response_headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
    assert "content-length" not in headers
    assert client.got[1]["more_body"]


async def test_a_request_is_counted_with_its_times() -> None:
    metrics = RecordedMetrics()
    await exchange(Client(), echo, metrics)
    assert metrics.requests == [(ROUTE, 200, "miss")]
    assert metrics.first_bytes[0] is not None
    assert metrics.left == []


@pytest.mark.parametrize("given", ["r-1", "A.b_c:9", "x" * 128])
async def test_a_clients_request_id_is_kept(given: str) -> None:
    async def handler(request: HttpRequest) -> Reply:
        return json_reply(request.id)

    assert json.loads((await exchange(Client(headers={"x-request-id": given}), handler)).body) == given


@pytest.mark.parametrize("given", ["", "x" * 129, f"{CANARY} {CANARY}", f"{CANARY}\n", '"', "é"])
async def test_a_request_id_that_cannot_stand_in_a_log_is_replaced(given: str, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: HttpRequest) -> Reply:
        return json_reply(request.id)

    with caplog.at_level(logging.INFO, "ray.serve"):
        client = await exchange(Client(headers={"x-request-id": given}), handler)
    assert len(json.loads(client.body)) == 32
    assert [record.__dict__["id"] for record in caplog.records] == [json.loads(client.body)]


async def test_what_is_logged_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        await exchange(Client([CANARY.encode()], {"x-request-id": "r-1"}), echo)
    (record,) = caplog.records
    logged = record.__dict__
    assert (logged["id"], logged["path"], logged["status"], logged["cache"]) == ("r-1", ROUTE, 200, "miss")
    assert logged["duration_ms"] >= 0
    assert CANARY not in str(logged)
