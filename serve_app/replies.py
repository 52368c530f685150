"""What a handler answers, and how it is sent over ASGI."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployments.engines.base import Send

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream; charset=utf-8"
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
        await send({"type": "http.response.start", "status": self.status, "headers": self._raw_headers()})
        if isinstance(self.body, bytes):
            await send({"type": "http.response.body", "body": self.body})
            return
        async for chunk in self.body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _raw_headers(self) -> list[tuple[bytes, bytes]]:
        headers = {"content-type": self.media_type, **self.headers}
        if isinstance(self.body, bytes):
            headers["content-length"] = str(len(self.body))
        if self.media_type == SSE_TYPE:
            headers |= _STREAM_HEADERS
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items() if value]


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, JSON_TYPE, msgspec.json.encode(value))
