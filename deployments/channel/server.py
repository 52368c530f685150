"""The serving end of private channels."""

import asyncio
import contextlib
import hmac
import logging
import secrets
import socket
from dataclasses import dataclass
from typing import cast

from deployments.channel import frames
from deployments.channel.asgi import CANCEL_GRACE_S, AppCall
from deployments.channel.frames import MAX_PAYLOAD, NONCE_BYTES, WINDOW, Decoder, Frame, Kind, Start, frame
from deployments.engines.base import ASGIApp
from deployments.errors import ChannelError

log = logging.getLogger("ray.serve")

GREETING_LIMIT_S = 10.0
"""Whoever has not proved by then that it knows the secret is cut off."""
MAX_STRANGERS = 64
"""Connections that have not proved it yet."""
MAX_BUFFERED = 1024 * 1024
"""Bytes of all answers that may wait for a slow peer's kernel; then all writers of that connection wait."""
CHUNK = 64 * 1024
CLOSE_LIMIT_S = 1.0
POLL_S = 0.02


class ChannelServer:
    """Serves an application to those who know the secret, on an OS-chosen port of `host`, in the running event loop.

    `host`: empty for the address by which Ray's other nodes reach this one.
    """

    def __init__(self, app: ASGIApp, host: str, secret: bytes, grace_s: float = CANCEL_GRACE_S) -> None:
        """`grace_s`: how long the application may take to end by itself when a client has left. Raises `ChannelError` without a secret."""
        if not secret:
            raise ChannelError("without a secret anybody could come in")
        self.app = app
        self.secret = secret
        self.grace_s = grace_s
        self.peers: set[_Peer] = set()
        self.strangers: dict[_Peer, None] = {}
        """The oldest first."""
        host = host or _node_address()
        self._socket = _listen(host)
        self._server: asyncio.Server | None = None
        name = f"[{host}]" if ":" in host else host
        self.url = f"tcp://{name}:{self._socket.getsockname()[1]}"

    async def start(self) -> None:
        """Twice does no harm."""
        if self._server is not None:
            return
        self._server = await asyncio.get_running_loop().create_server(lambda: _Peer(self), sock=self._socket)

    async def drain(self, limit_s: float) -> None:
        """Accepts no more connections, and returns when nothing runs, or after `limit_s` seconds."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while any(peer.is_busy for peer in self.peers):
                    await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        """Accepts nothing more, and does not wait for what runs: drain before. What was written arrives, if it is read soon."""
        if self._server is None:
            self._socket.close()
            return
        self._server.close()
        for peer in (*self.peers, *self.strangers):
            peer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT_S):
                while self.peers or self.strangers:
                    await asyncio.sleep(POLL_S)
        for peer in (*self.peers, *self.strangers):
            peer.cut()


@dataclass(slots=True)
class _Exchange:
    call: AppCall
    answer: "_Answer"
    task: asyncio.Task[None]
    end: asyncio.TimerHandle | None = None
    """Of the application's time to end by itself."""


class _Peer(asyncio.Protocol):
    """One connection: who it is, and its exchanges."""

    def __init__(self, server: ChannelServer) -> None:
        self._server = server
        self._decoder = Decoder()
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._exchanges: dict[int, _Exchange] = {}
        self._out: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MAX_BUFFERED)
        self._server.strangers[self] = None
        if len(self._server.strangers) > MAX_STRANGERS:  # an honest one does not wait for long
            next(iter(self._server.strangers)).cut()
        self._loop.call_later(GREETING_LIMIT_S, self._cut_stranger)
        self.write(frame(Kind.HELLO, payload=self._nonce))

    def connection_lost(self, error: Exception | None) -> None:
        self._server.strangers.pop(self, None)
        self._server.peers.discard(self)
        for number in tuple(self._exchanges):
            self._cancel(number)
        self._writable.set()  # what is written from now on goes nowhere

    @property
    def is_busy(self) -> bool:
        return bool(self._exchanges or self._out)

    def cut(self) -> None:
        self._transport.abort()

    def close(self) -> None:
        """Once everything that was written has left."""
        self._flush()
        self._transport.close()

    def _cut_stranger(self) -> None:
        if self in self._server.strangers:
            self.cut()

    def data_received(self, data: bytes) -> None:
        try:
            for each in self._decoder.feed(data):
                self._received(each)
        except ChannelError as error:
            if self in self._server.peers:  # strangers shall not fill the log
                log.warning("private channel cut", extra={"error": str(error)})
            self.cut()

    def _received(self, got: Frame) -> None:
        if self in self._server.strangers:
            self._greeted(got)
        elif got.kind == Kind.REQUEST:
            self._begin(got.exchange, frames.unpack_request(got.payload))
        elif got.kind == Kind.CREDIT:
            if exchange := self._exchanges.get(got.exchange):
                exchange.answer.credit(frames.unpack_count(got.payload))
        elif got.kind == Kind.CANCEL:
            self._cancel(got.exchange)
        else:
            raise ChannelError("a frame that no client sends")

    def _greeted(self, got: Frame) -> None:
        nonce, given = got.payload[:NONCE_BYTES], got.payload[NONCE_BYTES:]
        wanted = frames.proof(self._server.secret, "client", self._server.url, self._nonce, nonce)
        if got.kind != Kind.PROOF or not hmac.compare_digest(given, wanted):
            raise ChannelError("a caller that does not know the secret")
        del self._server.strangers[self]
        self._server.peers.add(self)
        self._decoder.limit = MAX_PAYLOAD
        self.write(frame(Kind.WELCOME, payload=frames.proof(self._server.secret, "server", self._server.url, self._nonce, nonce)))

    def _begin(self, number: int, request: frames.Request) -> None:
        if number in self._exchanges:
            raise ChannelError("an exchange that was begun twice")
        answer = _Answer(self, number)
        call = AppCall(self._server.app, request, answer)
        exchange = self._exchanges[number] = _Exchange(call, answer, self._loop.create_task(call.run()))
        exchange.task.add_done_callback(lambda _: self._ended(number))

    def _cancel(self, number: int) -> None:
        exchange = self._exchanges.get(number)
        if exchange is not None and exchange.end is None:
            exchange.call.leave()
            exchange.answer.abandon()
            exchange.end = self._loop.call_later(self._server.grace_s, exchange.task.cancel)

    def _ended(self, number: int) -> None:
        exchange = self._exchanges.pop(number)
        if exchange.end is not None:
            exchange.end.cancel()

    def write(self, data: bytes) -> None:
        """Leaves with all else that is written in this turn of the event loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def writable(self) -> None:
        if not self._writable.is_set():
            await self._writable.wait()


class _Answer:
    """A `Sink`: one exchange's frames."""

    def __init__(self, peer: _Peer, number: int) -> None:
        self._peer = peer
        self._number = number
        self._room = WINDOW
        self._waiting: asyncio.Future[None] | None = None
        self._is_wanted = True

    def start(self, start: Start) -> None:
        self._peer.write(frame(Kind.START, self._number, frames.pack(start)))

    async def data(self, data: bytes) -> None:
        for place in range(0, len(data), CHUNK):
            await self._peer.writable()
            while self._room <= 0 and self._is_wanted:
                self._waiting = asyncio.get_running_loop().create_future()
                await self._waiting
            if not self._is_wanted:
                return
            piece = data[place : place + CHUNK] if len(data) > CHUNK else data
            self._room -= len(piece)
            self._peer.write(frame(Kind.DATA, self._number, piece))

    def credit(self, number: int) -> None:
        self._room += number
        self._wake()

    def abandon(self) -> None:
        self._is_wanted = False
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def end(self) -> None:
        self._peer.write(frame(Kind.END, self._number))

    def failed(self) -> None:
        self._peer.write(frame(Kind.FAILED, self._number))


def _node_address() -> str:
    import ray

    address: str = ray.util.get_node_ip_address()
    return address


def _listen(host: str) -> socket.socket:
    # asyncio sets TCP_NODELAY only where the protocol is IPPROTO_TCP: without it, small frames may wait for 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, 0))
    sock.set_inheritable(False)
    return sock
