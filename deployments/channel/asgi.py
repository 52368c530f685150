"""Runs an ASGI application for one request, whoever the client is."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from deployments.channel.frames import Request, Start
from deployments.engines.base import ASGIApp, Message
from deployments.errors import ChannelError

log = logging.getLogger("ray.serve")

CANCEL_GRACE_S = 5.0
"""An application whose client has left ends by itself, or is cancelled."""


class Sink(Protocol):
    """Where an answer goes."""

    def start(self, start: Start) -> None: ...

    async def data(self, data: bytes) -> None:
        """Returns when more may come."""

    def end(self) -> None: ...

    def failed(self) -> None:
        """The application ended before its answer did."""


class AppCall:
    """One request to an application. `run` is to be a task of its own."""

    def __init__(self, app: ASGIApp, request: Request, sink: Sink) -> None:
        self._app = app
        self._request = request
        self._sink = sink
        self._asked = False
        self._started = False
        self._ended = False
        self._left = asyncio.Event()

    async def run(self) -> None:
        try:
            await self._app(self._scope(), self._receive, self._send)
        except Exception as error:
            log.warning("the application failed", extra={"path": self._request.target, "error": type(error).__name__}, exc_info=error)
        finally:
            if not self._ended:
                self._ended = True
                self._sink.failed()

    def leave(self) -> None:
        """The client does not want the answer any longer."""
        self._left.set()

    @property
    def is_left(self) -> bool:
        return self._left.is_set()

    def _scope(self) -> Message:
        path, _, query = self._request.target.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},  # 2.3: whoever listens for a disconnect is told of it
            "http_version": "1.1",
            "scheme": "http",
            "method": self._request.method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": self._request.headers,
            "client": None,
            "server": None,
        }

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._ended or self.is_left:  # as servers do: what comes too late is dropped
            return
        if message["type"] == "http.response.start":
            self._started = True
            self._sink.start(Start(message["status"], list(message.get("headers", ()))))
        elif self._started:
            if body := message.get("body", b""):
                await self._sink.data(bytes(body))
            if not message.get("more_body") and not self._ended:
                self._ended = True
                self._sink.end()


class _Queue:
    """A `Sink` that a reader of the same process empties; the writer is at most one piece ahead."""

    def __init__(self) -> None:
        self._start: asyncio.Future[Start] = asyncio.get_running_loop().create_future()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._has_failed = False

    def start(self, start: Start) -> None:
        self._start.set_result(start)

    async def data(self, data: bytes) -> None:
        await self._pieces.put(data)

    def end(self) -> None: ...

    def failed(self) -> None:
        self._has_failed = True
        if not self._start.done():
            self._start.set_exception(ChannelError("the application failed"))

    async def started(self) -> Start:
        return await self._start

    async def chunks(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece
        if self._has_failed:
            raise ChannelError("the application failed")

    async def run(self, call: AppCall) -> None:
        await call.run()
        await self._pieces.put(None)


@asynccontextmanager
async def relayed(app: ASGIApp, request: Request) -> AsyncIterator[tuple[Start, AsyncIterator[bytes]]]:
    """The application's answer in this process: its beginning, and the pieces of its body. Raises `ChannelError` where it breaks off."""
    queue = _Queue()
    call = AppCall(app, request, queue)
    working = asyncio.create_task(queue.run(call))
    try:
        yield await queue.started(), queue.chunks()
    finally:
        call.leave()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
