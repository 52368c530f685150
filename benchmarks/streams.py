"""Many streamed chats at a time, read with as little work as can be: the cores are shared with what is measured."""

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

LIMIT_S = 120.0
_EVENT, _DONE, _OK = b"data: {", b"data: [DONE]", b"HTTP/1.1 200"


@dataclass(frozen=True, slots=True)
class Streamed:
    """Of all streams together; times in seconds."""

    streams: int
    errors: int
    tokens: int
    wall_s: float
    ttft_s: NDArray[np.float64]
    """Of each stream, from the request's first byte to the first event."""
    gaps_s: NDArray[np.float64]
    """Between two arrivals of tokens of a stream, all streams behind each other, in order of time within a stream."""
    late_gaps_s: NDArray[np.float64]
    """Those of each stream's second half."""

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s


@dataclass(slots=True, eq=False)
class _Stream(asyncio.Protocol):
    request: bytes
    started: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    events: int = 0
    is_ok: bool = False
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    rest: bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.started = time.perf_counter()
        cast(asyncio.Transport, transport).write(self.request)

    def data_received(self, data: bytes) -> None:
        found = data.count(_EVENT)
        if found:
            self.arrivals.append(time.perf_counter())
            self.events += found
        self.is_ok = self.is_ok or data.startswith(_OK)
        if _DONE in self.rest + data:
            self._end()
        self.rest = data[-len(_DONE) :]

    def connection_lost(self, error: Exception | None) -> None:
        self.is_ok = self.is_ok and self.done.done()
        self._end()

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


def chat(model: str, tokens: int, rng: random.Random, **fields: Any) -> bytes:
    """A streamed chat that nobody has asked before, for exactly so many tokens."""
    content = f"Say something about number {rng.randrange(10**12)}, and then go on."
    sampling = {"max_tokens": tokens, "min_tokens": tokens, "ignore_eos": True, "temperature": 0, "stream": True}
    return json.dumps({"model": model, "messages": [{"role": "user", "content": content}], **sampling, **fields}).encode()


async def run(port: int, bodies: Sequence[bytes], path: str = "/v1/chat/completions", headers: Mapping[str, str] | None = None) -> Streamed:
    """All at once, each over a connection of its own to 127.0.0.1. Streams that fail, or take longer than `LIMIT_S`, are errors."""
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"content-type": "application/json", **(headers or {})}.items())
    streams = []
    for body in bodies:
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{lines}content-length: {len(body)}\r\n\r\n"
        request = head.encode() + body
        _, stream = await loop.create_connection(lambda request=request: _Stream(request), "127.0.0.1", port)  # type: ignore[misc]
        streams.append((_, stream))
    await asyncio.wait([stream.done for _, stream in streams], timeout=LIMIT_S)
    wall = time.perf_counter() - began
    for transport, _ in streams:
        transport.abort()
    return _summary([stream for _, stream in streams], wall)


def _summary(streams: Sequence[_Stream], wall_s: float) -> Streamed:
    good = [each for each in streams if each.is_ok and each.arrivals and each.done.done()]
    gaps = [np.diff(each.arrivals) for each in good]
    empty = np.zeros(0)
    return Streamed(
        len(streams),
        len(streams) - len(good),
        sum(each.events for each in good),
        wall_s,
        np.array([each.arrivals[0] - each.started for each in good]),
        np.concatenate(gaps) if gaps else empty,
        np.concatenate([each[len(each) // 2 :] for each in gaps]) if gaps else empty,
    )
