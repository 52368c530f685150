"""The private HTTP server of a replica: its engine's application, for callers that know the application's secret."""

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import msgspec
import uvicorn

from deployments.engines.base import ASGIApp, Engine, Message, Receive, Send
from deployments.errors import EngineDeadError

SECRET_HEADER = "x-mygo-internal"
RETRY_HEADER = "x-mygo-retry"
RETRY_MARK = (RETRY_HEADER.encode(), b"1")
"""On an answer that another replica should be asked for instead."""
LOAD_PATH = "/mygo/load"
KEEP_ALIVE_S = 90
"""Longer than any caller keeps an idle connection, so that the caller is always the one who closes it."""


class PrivateApp:
    """Lets only the application's own processes in, and refuses what the engine cannot answer, marked as safe to retry."""

    def __init__(self, engine: Engine, secret: str) -> None:
        self._engine = engine
        self._secret = secret.encode()
        self.draining = False
        self.open = 0
        """Requests that were passed on and are not completely answered. The engine's own count lags behind."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"the private port speaks HTTP only, not {scope['type']}")
        if not self._knows_secret(scope):
            await _answer(send, 403, _error("permission_error", "This port is private."))
        elif scope["path"] == LOAD_PATH:
            await _answer(send, 200, {**asdict(self._engine.load()), "draining": self.draining})
        elif self.draining and scope["method"] == "POST":
            await _answer(send, 503, _error("draining", "This replica is draining."), retry=True)
        else:
            await self._pass_on(scope, receive, send)

    async def _pass_on(self, scope: Message, receive: Receive, send: Send) -> None:
        self.open += 1
        try:
            await self._engine.app(scope, receive, partial(self._send_marked, send))
        finally:
            self.open -= 1

    async def _send_marked(self, send: Send, message: Message) -> None:
        """A server error of an engine that has died is no answer: another replica can give one."""
        if message["type"] == "http.response.start" and message["status"] >= 500 and await self._is_dead():
            message = {**message, "headers": [*message.get("headers", ()), RETRY_MARK]}
        await send(message)

    async def _is_dead(self) -> bool:
        try:
            await self._engine.check_health()
        except EngineDeadError:
            return True
        return False

    def _knows_secret(self, scope: Message) -> bool:
        given = next((value for name, value in scope["headers"] if name == SECRET_HEADER.encode()), b"")
        return hmac.compare_digest(given, self._secret)


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


async def _answer(send: Send, status: int, content: Any, *, retry: bool = False) -> None:
    headers = [(b"content-type", b"application/json")] + [RETRY_MARK] * retry
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(content)})


class _Server(uvicorn.Server):
    """Leaves the process's signal handlers alone: they belong to Ray."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class PrivateServer:
    """Serves an application on an OS-chosen port of `host`, in the running event loop."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._socket = _listen(host)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
            lifespan="off",
            ws="none",
            server_header=False,
            date_header=False,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise OSError(f"the private server on {self.host}:{self.port} stopped while starting")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Accepts nothing more, and does not wait for what runs: drain before."""
        self._server.should_exit = True
        self._server.force_exit = True
        if self._task:
            await self._task


def _listen(host: str) -> socket.socket:
    # asyncio sets TCP_NODELAY only where the protocol is IPPROTO_TCP: without it, answers take 40 ms on kept connections.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, 0))
    sock.set_inheritable(False)
    return sock
