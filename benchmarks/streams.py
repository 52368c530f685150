"""Many streamed chats at a time, read with as little work as can be: the cores are shared with what is measured."""

import asyncio
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

LIMIT_S = 120.0
SILENT_S = 5.0
"""A stream that is cut off at the end of a load, and has been silent for so long, has failed."""
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
    tokens_per_s: float


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
    began = time.perf_counter()
    streams = [await _start(port, body, path, headers or {}) for body in bodies]
    await asyncio.wait([stream.done for _, stream in streams], timeout=LIMIT_S)
    wall = time.perf_counter() - began
    for transport, _ in streams:
        transport.abort()
    return _summary([stream for _, stream in streams], wall)


async def keep_up(port: int, bodies: Iterator[bytes], concurrency: int, seconds: float) -> Streamed:
    """As `run`, but for `seconds` there are always so many: where one ends, the next of `bodies` begins.

    `tokens_per_s` is of the last three quarters of the time: at first all begin at once.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    streams: list[_Stream] = []
    finished: list[_Stream] = []

    async def one_after_the_other() -> None:
        while loop.time() < end:
            transport, stream = await _start(port, next(bodies), "/v1/chat/completions", {})
            streams.append(stream)
            ended, _ = await asyncio.wait([stream.done], timeout=max(0.0, end - loop.time()))
            finished.extend([stream] if ended else [])
            transport.abort()

    began = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))
    ended = time.perf_counter()
    counted_from = began + (ended - began) / 4
    counted = sum(np.mean(np.array(each.arrivals) >= counted_from) * each.events for each in streams if each.arrivals)
    silent = [each for each in streams if not each.done.done() and ended - (each.arrivals or [each.started])[-1] > SILENT_S]
    found = _summary([*finished, *silent], ended - began)
    return replace(found, tokens=sum(each.events for each in streams), tokens_per_s=float(counted / (ended - counted_from)))


async def _start(port: int, body: bytes, path: str, headers: Mapping[str, str]) -> tuple[asyncio.Transport, _Stream]:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"content-type": "application/json", **headers}.items())
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{lines}content-length: {len(body)}\r\n\r\n"
    return await asyncio.get_running_loop().create_connection(lambda: _Stream(head.encode() + body), "127.0.0.1", port)


def _summary(streams: Sequence[_Stream], wall_s: float) -> Streamed:
    good = [each for each in streams if each.is_ok and each.arrivals and each.done.done()]
    gaps = [np.diff(each.arrivals) for each in good]
    empty = np.zeros(0)
    tokens = sum(each.events for each in good)
    return Streamed(
        len(streams),
        len(streams) - len(good),
        tokens,
        wall_s,
        np.array([each.arrivals[0] - each.started for each in good]),
        np.concatenate(gaps) if gaps else empty,
        np.concatenate([each[len(each) // 2 :] for each in gaps]) if gaps else empty,
        tokens / wall_s,
    )
