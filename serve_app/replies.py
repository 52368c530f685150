"""What a handler answers, and how it is sent over ASGI."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployments.engines.base import Send
from serve_app.errors import ApiError
from serve_app.openai.replay import Pieces, fill

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream; charset=utf-8"
SAID_EMPTY = ("x-mygo-documents",)
"""Headers whose empty value is an answer: documents were asked for, and the chat got none."""
READY_OVERHEAD_BYTES = 1024
_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Keep proxies, nginx above all, from holding back a stream."""


async def _nothing() -> None: ...


@dataclass(slots=True)
class Reply:
    """A status, headers, and a body that is bytes or still to come. `close` releases what the body comes from."""

    status: int
    headers: dict[str, str]
    media_type: str
    body: bytes | AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]] = field(default=_nothing)

    async def send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.raw_headers()})
        if isinstance(self.body, bytes):
            await send({"type": "http.response.body", "body": self.body})
            return
        async for chunk in self.body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """As ASGI sends them. Without a value they say nothing, but for those of `SAID_EMPTY`."""
        headers = {"content-type": self.media_type, **self.headers}
        if isinstance(self.body, bytes):
            headers["content-length"] = str(len(self.body))
        if self.media_type == SSE_TYPE:
            headers |= _STREAM_HEADERS
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items() if value or name in SAID_EMPTY]


@dataclass(frozen=True, slots=True)
class ReadyReply:
    """A whole reply, as it goes over ASGI."""

    headers: list[tuple[bytes, bytes]]
    body: bytes
    status: int = 200

    async def send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


class Ready:
    """A kept answer in one form, ready to be sent as often as it is asked for."""

    __slots__ = ("_headers", "_pieces", "size")

    def __init__(self, headers: list[tuple[bytes, bytes]], pieces: Pieces) -> None:
        self._headers = [header for header in headers if header[0] != b"content-length"]
        self._pieces = pieces
        self.size = sum(len(piece) for piece in pieces if isinstance(piece, bytes)) + READY_OVERHEAD_BYTES
        """Memory that it takes besides the answer, in bytes."""

    def reply(self, response_id: str, created: int, request_id: str) -> ReadyReply:
        body = fill(self._pieces, response_id, created)
        return ReadyReply([*self._headers, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode())], body)


def refused(error: ApiError, request_id: str) -> ReadyReply:
    """An error that is sent at once."""
    reply = json_reply(error.body(), error.status, {**error.headers, "x-request-id": request_id})
    assert isinstance(reply.body, bytes)  # noqa: S101
    return ReadyReply(reply.raw_headers(), reply.body, error.status)


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, JSON_TYPE, msgspec.json.encode(value))
