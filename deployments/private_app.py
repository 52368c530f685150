"""What a replica's private channel serves: its engine's application, and what the engine is doing."""

from dataclasses import asdict
from functools import partial
from typing import Any

import msgspec

from deployments.engines.base import Engine, Message, Receive, Send
from deployments.errors import EngineDeadError

RETRY_MARK = (b"x-mygo-retry", b"1")
"""On an answer that another replica should be asked for instead."""
LOAD_PATH = "/mygo/load"


class PrivateApp:
    """Refuses what the engine cannot answer, marked as safe to retry."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.draining = False
        self.open = 0
        """Requests that were passed on and are not completely answered. The engine's own count lags behind."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] == LOAD_PATH:
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


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


async def _answer(send: Send, status: int, content: Any, *, retry: bool = False) -> None:
    headers = [(b"content-type", b"application/json")] + [RETRY_MARK] * retry
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(content)})
