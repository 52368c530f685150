"""The client's side of a WebSocket over ASGI."""

import asyncio
import json

from deployments.engines.base import Message
from tests.serve_app.fakes import eventually
from tests.serve_app.modelcache.asking import Json, Server


class Client:
    """Says what a test says; `got` is what it was sent. `read` is how many frames the server has taken."""

    def __init__(self, server: Server, headers: dict[str, str] | None = None) -> None:
        raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self.got: list[Message] = []
        self.read = 0
        self.reads_replies = asyncio.Event()
        self.reads_replies.set()
        self.broken: Exception | None = None
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._inbox.put_nowait({"type": "websocket.connect"})
        scope = {"type": "websocket", "path": "/modelcache", "headers": raw}
        self.task = asyncio.ensure_future(server.socket(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        message = await self._inbox.get()
        self.read += message["type"] == "websocket.receive"
        return message

    async def _send(self, message: Message) -> None:
        await self.reads_replies.wait()
        if self.broken:
            raise self.broken
        self.got.append(message)

    def say(self, frame: object) -> None:
        self._inbox.put_nowait({"type": "websocket.receive", "text": frame if isinstance(frame, str) else json.dumps(frame)})

    def ask(self, request_id: object, payload: object) -> None:
        self.say({"requestId": request_id, "payload": payload})

    def say_bytes(self, frame: bytes) -> None:
        self._inbox.put_nowait({"type": "websocket.receive", "bytes": frame})

    async def leave(self, code: int = 1005) -> None:
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": code})
        await asyncio.wait_for(self.task, 5)

    @property
    def frames(self) -> list[Json]:
        return [json.loads(message["text"]) for message in self.got if message["type"] == "websocket.send"]

    async def answers(self, count: int) -> list[Json]:
        await eventually(lambda: len(self.frames) >= count)
        return self.frames
