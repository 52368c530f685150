"""One HTTP exchange: body in, reply out, with the client watched all the time."""

import asyncio
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.datastructures import Headers

from deployments.engines.base import Message, Receive, Send
from deployments.errors import DeploymentError
from retrieval.errors import BusyError
from serve_app.door import Door
from serve_app.errors import (
    ApiError,
    EncodingError,
    InvalidRequestError,
    KeyringError,
    OverdueError,
    SlowBodyError,
    TooLargeError,
    to_api_error,
)
from serve_app.exchanges import Exchange, Exchanges
from serve_app.pipeline import Arrival
from serve_app.replies import Reply, json_reply
from serve_app.slow_readers import PatientSend
from serve_app.tenants import Principal

log = logging.getLogger("ray.serve")

REQUEST_ID_HEADER = "x-request-id"
PROCESSING_HEADER = "openai-processing-ms"
"""OpenAI's: until the answer begins."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
CLIENT_CLOSED_REQUEST = 499
BODY_TIMEOUT_S = 30.0
UPLOAD_TIMEOUT_S = 1800.0
"""For all of a body that is read piece by piece; its next piece has `BODY_TIMEOUT_S`."""
ARRIVED = "mygo.arrived"
LATE = "mygo.late"
"""In the scope of a request for whose body `serve_app.front` has waited long enough."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """What `serve_app.front` leaves in the scope of a request that it has read and not answered, under `ARRIVED`."""

    request_id: str
    started: float
    """On `time.perf_counter`."""
    arrival: Arrival


class ClientDisconnectedError(Exception):
    """The client left; nobody waits for the answer."""


@dataclass(slots=True)
class HttpRequest:
    """What a handler sees of a request."""

    path: str
    path_params: dict[str, str]
    headers: Headers
    body: bytes
    id: str
    query: str = ""
    principal: Principal = field(default_factory=Principal)
    arrival: Arrival | None = None
    """What `serve_app.front` knows of it already."""


Handler = Callable[[HttpRequest], Awaitable[Reply]]
Refuse = Callable[[ApiError, str], Reply]
"""What a client is told of an error, in answer to the request with this id."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A handler that reads the body itself, piece by piece, to its end; its request's `body` is empty. It is given at most `max_bytes`.

    `too_large` tells the client of a longer body; empty: as for any other.
    """

    handler: Callable[[HttpRequest, AsyncIterator[bytes]], Awaitable[Reply]]
    max_bytes: int
    too_large: str = ""


class Endpoint:
    """An ASGI application that runs one handler.

    `door` says who the request is from, before anything of its body is read; None: everybody is let in, under no name. The handler is
    cancelled as soon as the client disconnects, so that an engine never works for nobody.
    """

    def __init__(
        self,
        route: str,
        handler: Handler | Upload,
        max_body_bytes: int,
        exchanges: Exchanges,
        door: Door | None = None,
        refuse: Refuse | None = None,
    ) -> None:
        self._route = route
        self._handler = handler
        self._max_body_bytes = max_body_bytes
        self._exchanges = exchanges
        self._door = door
        self._refuse = refuse or _error_reply

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        arrived: Arrived | None = scope.get(ARRIVED)
        exchange = (
            Exchange(arrived.request_id, arrived.started) if arrived else Exchange(request_id_of(_header(headers, REQUEST_ID_HEADER)))
        )
        try:
            request = HttpRequest(
                scope["path"],
                scope.get("path_params", {}),
                headers,
                b"",
                exchange.request_id,
                scope.get("query_string", b"").decode("latin-1"),
                arrival=arrived.arrival if arrived else None,
            )
            if self._door:
                request.principal = arrived.arrival.caller.principal if arrived else await self._door.principal(scope["headers"])
            if (headers.get("content-encoding") or "identity").lower() != "identity":
                raise EncodingError("The body must not be compressed: send it without content-encoding.", code="unsupported_encoding")
            if isinstance(self._handler, Upload):
                pieces = read_pieces(receive, headers, self._handler.max_bytes, self._handler.too_large)
                await self._answer(partial(self._handler.handler, request, pieces), request, send, exchange)
            else:
                request.body = await self._body(receive, headers, 0 if scope.get(LATE) else BODY_TIMEOUT_S)
                await until_disconnect(receive, self._answer(partial(self._handler, request), request, send, exchange))
        except (ApiError, KeyringError) as error:
            await self._send(self._refuse(to_api_error(error), exchange.request_id), send, exchange)
        except (ClientDisconnectedError, OSError):
            self._client_left(exchange)
        except asyncio.CancelledError:  # Serve does so too, when it is the first to see that the client has left
            self._client_left(exchange)
            raise
        finally:
            self._exchanges.ended(self._route, exchange)

    async def _body(self, receive: Receive, headers: Headers, limit_s: float) -> bytes:
        """Bounded in time too: a body that never comes would hold its place for ever."""
        try:
            async with asyncio.timeout(limit_s):
                return await read_body(receive, headers, self._max_body_bytes)
        except TimeoutError:
            raise SlowBodyError(f"The body did not arrive within {BODY_TIMEOUT_S:.0f} seconds.", code="body_timeout") from None

    async def _answer(self, handle: Callable[[], Awaitable[Reply]], request: HttpRequest, send: Send, exchange: Exchange) -> None:
        try:
            reply = await handle()
        except ClientDisconnectedError:
            raise
        except Exception as error:
            api_error = to_api_error(error)
            if api_error.status >= 500 and not isinstance(error, DeploymentError | BusyError | OverdueError):
                log.exception("request failed", extra={"id": request.id, "path": self._route})
            reply = self._refuse(api_error, exchange.request_id)
        await self._send(reply, send, exchange)

    async def _send(self, reply: Reply, send: Send, exchange: Exchange) -> None:
        exchange.status, exchange.cache = reply.status, reply.headers.get("x-mygo-cache", "")
        reply.headers[PROCESSING_HEADER] = processing_ms(exchange.started)

        patient = PatientSend(send, self._exchanges.client_timeout_s)

        async def timed(message: Message) -> None:
            if exchange.first_byte_s is None and message.get("body"):
                exchange.first_byte_s = time.perf_counter() - exchange.started
            await patient(message)

        try:
            await reply.send(timed)
        finally:
            patient.close()
            await reply.close()

    def _client_left(self, exchange: Exchange) -> None:
        exchange.status = CLIENT_CLOSED_REQUEST
        self._exchanges.left(self._route)


def _error_reply(error: ApiError, request_id: str) -> Reply:
    return json_reply(error.body(), error.status, dict(error.headers))


def _header(headers: Headers, name: str) -> bytes | None:
    value = headers.get(name)
    return None if value is None else value.encode("latin-1")


def request_id_of(given: bytes | None) -> str:
    """The client's own, if it can stand in a log line. Serve sets the header when the client did not, and echoes it."""
    return given.decode() if given is not None and is_request_id(given) else f"{random.getrandbits(128):032x}"


def is_request_id(given: bytes) -> bool:
    return bool(_REQUEST_ID.match(given))


def processing_ms(started: float) -> str:
    """`started`: on `time.perf_counter`."""
    return str(round((time.perf_counter() - started) * 1000))


def declared_length(given: bytes | None) -> int | None:
    """In bytes; 0 where nothing is declared. None: that is no number."""
    if given is None:
        return 0
    return int(given) if _LENGTH.match(given) else None


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body. Raises `TooLargeError` as soon as it is known to be longer than `limit` bytes."""
    body = bytearray()
    async for piece in _pieces(receive, headers, limit):
        body += piece
    return bytes(body)


async def read_pieces(receive: Receive, headers: Headers, limit: int, too_large: str = "") -> AsyncIterator[bytes]:
    """The body as it comes, which may take long, but not for ever. Raises as `read_body` does, and `SlowBodyError`."""
    pieces = _pieces(receive, headers, limit, too_large)
    end = asyncio.get_running_loop().time() + UPLOAD_TIMEOUT_S
    while True:
        try:
            async with asyncio.timeout(min(BODY_TIMEOUT_S, end - asyncio.get_running_loop().time())):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise SlowBodyError(f"Nothing of the body arrived for {BODY_TIMEOUT_S:.0f} seconds.", code="body_timeout") from None
        if piece is None:
            return
        yield piece


async def _pieces(receive: Receive, headers: Headers, limit: int, reason: str = "") -> AsyncIterator[bytes]:
    too_large = TooLargeError(reason or f"The body is longer than {limit} bytes.", code="body_too_large")
    declared = declared_length(_header(headers, "content-length"))
    if declared is None:
        raise InvalidRequestError("The header content-length is not a number.")
    if declared > limit:
        raise too_large
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise too_large
        if piece:
            yield piece
        if not message.get("more_body"):
            return


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` to its end, or cancels it when the client leaves. Raises `ClientDisconnectedError` then."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnectedError
        await working
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
