"""One HTTP exchange: body in, reply out, with the client watched all the time."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers

from deployments.engines.base import Message, Receive, Send
from deployments.errors import DeploymentError
from serve_app.errors import ApiError, InvalidRequestError, SlowBodyError, TooLargeError, to_api_error
from serve_app.metrics import Metrics
from serve_app.replies import Reply, json_reply

log = logging.getLogger("ray.serve")

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_LENGTH = re.compile(r"[0-9]{1,18}\Z")
CLIENT_CLOSED_REQUEST = 499
BODY_TIMEOUT_S = 30.0


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


Handler = Callable[[HttpRequest], Awaitable[Reply]]


@dataclass(slots=True)
class _Exchange:
    """What is known of an exchange when it ends."""

    request_id: str
    started: float = field(default_factory=time.perf_counter)
    status: int = 0
    first_byte_s: float | None = None
    cache: str = ""


class Endpoint:
    """An ASGI application that runs one handler.

    The handler is cancelled as soon as the client disconnects, so that an engine never works for nobody.
    """

    def __init__(self, route: str, handler: Handler, max_body_bytes: int, metrics: Metrics) -> None:
        self._route = route
        self._handler = handler
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        exchange = _Exchange(_request_id(headers))
        try:
            body = await self._body(receive, headers)
            request = HttpRequest(
                scope["path"],
                scope.get("path_params", {}),
                headers,
                body,
                exchange.request_id,
                scope.get("query_string", b"").decode("latin-1"),
            )
            await until_disconnect(receive, self._answer(request, send, exchange))
        except ApiError as error:
            await self._send(_error_reply(error), send, exchange)
        except (ClientDisconnectedError, OSError):
            self._client_left(exchange)
        except asyncio.CancelledError:  # Serve does so too, when it is the first to see that the client has left
            self._client_left(exchange)
            raise
        finally:
            self._record(exchange)

    async def _body(self, receive: Receive, headers: Headers) -> bytes:
        """Bounded in time too: a body that never comes would hold its place for ever."""
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return await read_body(receive, headers, self._max_body_bytes)
        except TimeoutError:
            raise SlowBodyError(f"The body did not arrive within {BODY_TIMEOUT_S:.0f} seconds.", code="body_timeout") from None

    async def _answer(self, request: HttpRequest, send: Send, exchange: _Exchange) -> None:
        try:
            reply = await self._handler(request)
        except Exception as error:
            api_error = to_api_error(error)
            if api_error.status >= 500 and not isinstance(error, DeploymentError):
                log.exception("request failed", extra={"id": request.id, "path": self._route})
            reply = _error_reply(api_error)
        await self._send(reply, send, exchange)

    async def _send(self, reply: Reply, send: Send, exchange: _Exchange) -> None:
        exchange.status, exchange.cache = reply.status, reply.headers.get("x-mygo-cache", "")

        async def timed(message: Message) -> None:
            if exchange.first_byte_s is None and message.get("body"):
                exchange.first_byte_s = time.perf_counter() - exchange.started
            await send(message)

        try:
            await reply.send(timed)
        finally:
            await reply.close()

    def _client_left(self, exchange: _Exchange) -> None:
        exchange.status = CLIENT_CLOSED_REQUEST
        self._metrics.disconnected(self._route)

    def _record(self, exchange: _Exchange) -> None:
        duration = time.perf_counter() - exchange.started
        self._metrics.request(self._route, exchange.status, exchange.cache, duration, exchange.first_byte_s)
        log.info(
            "request",
            extra={
                "id": exchange.request_id,
                "path": self._route,
                "status": exchange.status,
                "cache": exchange.cache,
                "duration_ms": round(duration * 1000, 2),
            },
        )


def _error_reply(error: ApiError) -> Reply:
    return json_reply(error.body(), error.status, dict(error.headers))


def _request_id(headers: Headers) -> str:
    """The client's own, if it can stand in a log line. Serve sets the header when the client did not, and echoes it."""
    given = headers.get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.match(given) else uuid.uuid4().hex


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body. Raises `TooLargeError` as soon as it is known to be longer than `limit` bytes."""
    too_large = TooLargeError(f"The body is longer than {limit} bytes.", code="body_too_large")
    declared = headers.get("content-length", "0")
    if not _LENGTH.match(declared):
        raise InvalidRequestError("The header content-length is not a number.")
    if int(declared) > limit:
        raise too_large
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_large
        if not message.get("more_body"):
            return bytes(body)


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
