"""ModelCache's WebSocket: many requests over one connection, answered as they are done."""

import asyncio
import logging
import time
import uuid
from typing import Any

import msgspec

from deployments.engines.base import Message, Receive, Send
from serve_app.door import Door, RawHeaders
from serve_app.endpoint import ClientDisconnectedError
from serve_app.errors import ApiError, KeyringError
from serve_app.metrics import Metrics
from serve_app.modelcache import bodies
from serve_app.modelcache.bodies import Body, Response
from serve_app.modelcache.protocol import NotJsonError, decode
from serve_app.modelcache.routes import PATH, refusal_of
from serve_app.modelcache.service import ModelCacheService
from serve_app.tenants import Principal

log = logging.getLogger("ray.serve")

ROUTE = f"WEBSOCKET {PATH}"
MAX_IN_FLIGHT = 16
POLICY_VIOLATION = 1008
_EMPTY: tuple[Any, ...] = (None, "", [], {})


class ModelCacheSocket:
    """An ASGI application: a frame is `{"requestId", "payload"}`, its answer `{"requestId", "result"}`, in any order.

    What is wrong with a frame is answered by the bare body of an error, with its `requestId` if that could be read.
    Of each connection `max_in_flight` requests are worked on and one more waits; no other frame is read meanwhile.
    They are cancelled as soon as the client leaves or the server closes.
    """

    def __init__(
        self,
        service: ModelCacheService,
        door: Door,
        max_frame_bytes: int,
        metrics: Metrics,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self._service = service
        self._door = door
        self._max_frame_bytes = max_frame_bytes
        self._metrics = metrics
        self._max_in_flight = max_in_flight

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await receive()  # the request to connect
        try:
            principal = await self._door.principal(scope["headers"])
        except (ApiError, KeyringError):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        connection = _Connection(principal, send, asyncio.Semaphore(self._max_in_flight))
        try:
            await send({"type": "websocket.accept"})
            await self._serve(connection, scope["headers"], receive)
        except* (ClientDisconnectedError, OSError):
            pass
        except* (ApiError, KeyringError):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        finally:
            if connection.open:
                self._metrics.disconnected(ROUTE)

    async def _serve(self, connection: "_Connection", headers: RawHeaders, receive: Receive) -> None:
        """A frame is read before there is room for it: so the client's leaving is seen while all places are taken."""
        async with asyncio.TaskGroup() as group:
            while True:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    raise ClientDisconnectedError
                connection.principal = await self._door.principal(headers)  # the key may have been revoked since
                await connection.room.acquire()
                connection.requests += 1
                group.create_task(self._exchange(connection, message, f"{connection.id}.{connection.requests}"))

    async def _exchange(self, connection: "_Connection", message: Message, request_id: str) -> None:
        started = time.perf_counter()
        connection.open += 1
        status, frame = await self._answer(connection.principal, message, request_id)
        await connection.send(frame)
        connection.open -= 1
        connection.room.release()
        duration = time.perf_counter() - started
        self._metrics.request(ROUTE, status, "", duration, duration)
        log.info("request", extra={"id": request_id, "path": ROUTE, "status": status, "duration_ms": round(duration * 1000, 2)})

    async def _answer(self, principal: Principal, message: Message, request_id: str) -> tuple[int, bytes]:
        try:
            envelope = self._envelope(message)
        except NotJsonError:
            return _bare(bodies.bad_request(), None)
        asked = envelope.get("requestId")
        if asked in _EMPTY or envelope.get("payload") in _EMPTY:
            return _bare(bodies.bad_request(), asked)
        if refused := refusal_of(principal):
            return _bare(refused, asked)
        status, body = await self._service.handle(principal.tenant, envelope["payload"], request_id)
        if status != 200:
            return _bare((status, body), asked)
        return status, msgspec.json.encode({"requestId": asked, "result": body})

    def _envelope(self, message: Message) -> Body:
        """Raises `NotJsonError`, also for a frame that is too long: only its JSON would tell the `requestId`."""
        text, raw = message.get("text"), message.get("bytes")
        frame = text.encode(errors="surrogatepass") if text is not None else raw or b""
        value = decode(frame) if len(frame) <= self._max_frame_bytes else None
        if not isinstance(value, dict):
            raise NotJsonError
        return value


class _Connection:
    """One client. `open`: requests without an answer; `requests`: how many there were."""

    def __init__(self, principal: Principal, send: Send, room: asyncio.Semaphore) -> None:
        self.principal = principal
        self.room = room
        self.id = uuid.uuid4().hex
        self.requests = 0
        self.open = 0
        self._send = send
        self._sending = asyncio.Lock()

    async def send(self, frame: bytes) -> None:
        """One at a time: a client that does not read holds its requests' places, not the server's memory.

        Raises `ClientDisconnectedError`; servers have several errors for a connection that is closed.
        """
        async with self._sending:
            try:
                await self._send({"type": "websocket.send", "text": frame.decode()})
            except (OSError, RuntimeError) as error:
                raise ClientDisconnectedError from error


def _bare(response: Response, asked: Any) -> tuple[int, bytes]:
    status, body = response
    return status, msgspec.json.encode({**body, **({} if asked in _EMPTY else {"requestId": asked})})
