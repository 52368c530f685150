"""The outermost layer of an ingress replica's HTTP server: what this process can answer at once is answered here.

Ray Serve's own work for each request (tasks, disconnect watcher, request context, metrics) costs several times what an exact hit does. Ray
imports `middlewares` by name (`ENVIRONMENT`) and puts its layer before that. Whatever is not answered here goes on as it came, with what
was read of it in the scope; the application answers everything by itself, too, where this layer is missing.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.middleware import Middleware

from deployments.engines.base import ASGIApp, Message, Receive, Send
from serve_app.door import Door
from serve_app.endpoint import (
    ARRIVED,
    BODY_TIMEOUT_S,
    LATE,
    PROCESSING_HEADER,
    REQUEST_ID_HEADER,
    Arrived,
    declared_length,
    processing_ms,
    request_id_of,
)
from serve_app.errors import ApiError
from serve_app.exchanges import Exchange, Exchanges
from serve_app.grpc import ENVIRONMENT as GRPC
from serve_app.openai.requests import Parser
from serve_app.pipeline import Asked, Pipeline
from serve_app.replies import ReadyReply, refused
from serve_app.stray_headers import without_strays
from serve_app.tenants import Principal, caller_of

ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.front:middlewares",
    # The HTTP server, Ray's router and the application in one event loop: no request changes threads.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    # With an arena for each of Ray's threads, what requests leave free is not used again: memory grows with their number.
    "MALLOC_ARENA_MAX": "1",
    **GRPC,
}
"""Of an ingress replica's process."""

_Name = tuple[str, str, int, bytes]

UPLOADS = frozenset({"/v1/files"})
"""Paths whose bodies the application reads piece by piece, and sees for itself when the client leaves."""
SEEN = 16_384
"""Bodies that are recognised without being parsed; about 300 bytes each."""
_ID = REQUEST_ID_HEADER.encode()
_ENCODING = b"content-encoding"
_PROCESSING = PROCESSING_HEADER.encode()
_UNWATCHED = b"x-request-disconnect-disabled"
"""Ray's: while it watches for a client that leaves, it reads the whole body into memory, however slowly the application takes it."""


class HitPath:
    """Answers generation requests that need no waiting. `parsers`: by path. Belongs to an event loop."""

    def __init__(self, pipeline: Pipeline, exchanges: Exchanges, parsers: Mapping[str, Parser], door: Door) -> None:
        self.parsers = parsers
        self._door = door
        self._pipeline = pipeline
        self._exchanges = exchanges
        self._limit = pipeline.config.ingress.max_body_bytes
        self._max_reading = pipeline.config.ingress.max_ongoing_requests
        self._reading = 0
        self._routes = {path: f"POST {path}" for path in parsers}
        self._seen: OrderedDict[_Name, Asked] = OrderedDict()

    async def answer(self, scope: Message, receive: Receive, send: Send) -> Receive | None:
        """None: it is answered. Else what the application is to receive; `scope` says what is known already."""
        started = time.perf_counter()
        headers = dict(scope["headers"])
        if len(headers) != len(scope["headers"]) or _ENCODING in headers:  # a header that stands twice is not for here to judge
            return receive
        try:
            principal = self._door.at_once(headers)
        except ApiError:
            principal = None
        if principal is None:  # the application finds out who it is before it reads the body
            return receive
        messages = await self._body(scope, receive, headers)
        if not messages or messages[-1]["type"] != "http.request" or messages[-1].get("more_body"):
            return _replayed(messages, receive)
        body = b"".join(message.get("body", b"") for message in messages)
        request_id = request_id_of(headers.get(_ID))
        try:
            ready = self._ready(scope, headers, principal, body, request_id, started)
        except Exception:  # the application fails as well, and knows how to say so
            return _replayed(messages, receive)
        if ready is None:
            return _replayed(messages, receive)
        exchange = Exchange(request_id, started, ready.status, cache="exact" if ready.status == 200 else "")
        ready.headers.append((_PROCESSING, processing_ms(started).encode()))
        try:
            await ready.send(send)
            exchange.first_byte_s = time.perf_counter() - started
        finally:
            self._exchanges.ended(self._routes[scope["path"]], exchange)
        return None

    def _ready(
        self, scope: Message, headers: Mapping[bytes, bytes], principal: Principal, body: bytes, request_id: str, started: float
    ) -> ReadyReply | None:
        """The reply, if this process has it, or a refusal; a body that was seen before is not parsed. Without a reply, what was found out
        is left in the scope. May raise.
        """
        name = None if b"cache-control" in headers else self._name(scope, principal, body)
        asked = None if name is None else self._seen.get(name)
        if asked is not None and (ready := self._taken(asked, principal, request_id)):
            return ready
        arrival = self._pipeline.arrive(self.parsers[scope["path"]](body), caller_of(Headers(scope=scope), request_id, principal))
        asked = arrival.asked
        if asked is not None and (ready := self._taken(asked, principal, request_id)):
            if name is not None:
                self._remember(name, asked)
            return ready
        if error := self._pipeline.refusal(arrival):
            return refused(error, request_id)
        scope[ARRIVED] = Arrived(request_id, started, arrival)
        scope["headers"] = [header for header in scope["headers"] if header[0] != _ID] + [(_ID, request_id.encode())]  # Serve echoes it
        return None

    def _taken(self, asked: Asked, principal: Principal, request_id: str) -> ReadyReply | None:
        """None also for a request that its tenant may not make now: the application says so."""
        pipeline = self._pipeline
        if pipeline.admission.is_free(principal):
            return pipeline.at_hand(asked, request_id)
        headers = pipeline.admission.hit(principal) if pipeline.is_at_hand(asked) else None
        ready = None if headers is None else pipeline.at_hand(asked, request_id)
        if ready is not None and headers is not None:
            ready.headers.extend((name.encode(), value.encode()) for name, value in headers.items())
        return ready

    def _name(self, scope: Message, principal: Principal, body: bytes) -> _Name:
        """All that a cache key is made of, where no header speaks of the cache, and who may be given what it names."""
        return scope["path"], principal.tenant, principal.stamp, hashlib.sha256(body).digest()

    def _remember(self, name: _Name, asked: Asked) -> None:
        self._seen[name] = asked
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)

    async def _body(self, scope: Message, receive: Receive, headers: Mapping[bytes, bytes]) -> list[Message]:
        """The messages of the body, or of its beginning: if it is too long, does not come, or too many others, which Serve has not admitted
        yet, are being read."""
        length = declared_length(headers.get(b"content-length"))
        if length is None or length > self._limit:
            return []
        messages: list[Message] = []
        self._reading += 1
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                messages.append(await receive())
                size = len(messages[0].get("body", b""))
                while messages[-1].get("more_body") and size <= self._limit and self._reading <= self._max_reading:
                    messages.append(await receive())
                    size += len(messages[-1].get("body", b""))
        except TimeoutError:
            scope[LATE] = True
        finally:
            self._reading -= 1
        return messages


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    """Receives what was read already, then the rest."""
    waiting = iter(messages)

    async def receive_again() -> Message:
        message = next(waiting, None)
        return await receive() if message is None else message

    return receive_again


class Front:
    """The ASGI middleware. It does nothing until the application of this process has set `hit_path`."""

    hit_path: HitPath | None = None

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        path = Front.hit_path
        if scope["type"] in ("http", "websocket"):
            scope["headers"] = without_strays(scope["headers"])
        if scope["type"] == "http" and scope["path"] in UPLOADS and scope["method"] == "POST":
            scope["headers"] = [*scope["headers"], (_UNWATCHED, b"?1")]
        if path is not None and scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in path.parsers:
            rest = await path.answer(scope, receive, send)
            if rest is None:
                return
            receive = rest
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Ray asks for when an ingress replica's HTTP server starts."""
    return [Middleware(Front)]
