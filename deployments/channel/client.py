"""The asking end of private channels."""

import asyncio
import hmac
import secrets
from collections import deque
from typing import cast
from urllib.parse import urlsplit

from deployments.channel import frames
from deployments.channel.frames import MAX_PAYLOAD, NONCE_BYTES, WINDOW, Decoder, Frame, Kind, Request, Start, frame
from deployments.channel.patience import Patience, Silence
from deployments.errors import ChannelError, OversizeError

CONNECT_TIMEOUT_S = 2.0
MAX_EXCHANGES = 2**32
WATCH_S = 1.0
"""What silence may be noticed too late."""
MAX_UNREAD = 32 * 1024 * 1024
"""Bytes of requests that may wait for a server that does not read; then it gets no more."""


class Connection(asyncio.Protocol):
    """One authenticated connection, shared by any number of exchanges. Made by `connect`."""

    def __init__(self, url: str, secret: bytes, silence_s: float) -> None:
        self._url = url
        self._secret = secret
        self._patience = Patience(silence_s, silence_s)
        self._decoder = Decoder()
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._server_nonce = b""
        self._exchanges: dict[int, Exchange] = {}
        self._number = 0
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._watching: asyncio.TimerHandle | None = None
        self.ready: asyncio.Future[None] = self._loop.create_future()
        """Both sides know each other. Raises `ChannelError`."""
        self.is_open = True
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MAX_UNREAD)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if not self.ready.done():
            self.ready.set_exception(ChannelError("the connection was closed while it was opened"))
        if self._watching is not None:
            self._watching.cancel()
        for exchange in tuple(self._exchanges.values()):
            exchange.lose(ChannelError("the connection was closed"))

    def close(self) -> None:
        """Ends it and all its exchanges."""
        self.is_open = False
        self._transport.abort()

    def __len__(self) -> int:
        """Exchanges that are open."""
        return len(self._exchanges)

    def data_received(self, data: bytes) -> None:
        try:
            for each in self._decoder.feed(data):
                self._received(each)
        except ChannelError as error:
            if not self.ready.done():
                self.ready.set_exception(error)
            self.close()

    def _received(self, got: Frame) -> None:
        if not self.ready.done():
            self._greeted(got)
        elif exchange := self._exchanges.get(got.exchange):  # else it was given up
            exchange.received(got)

    def _greeted(self, got: Frame) -> None:
        if got.kind == Kind.HELLO and not self._server_nonce and len(got.payload) == NONCE_BYTES:
            self._server_nonce = got.payload
            self.write(frame(Kind.PROOF, payload=self._nonce + self._proof("client")))
        elif got.kind == Kind.WELCOME and self._server_nonce and hmac.compare_digest(got.payload, self._proof("server")):
            self._decoder.limit = MAX_PAYLOAD
            self.ready.set_result(None)
        else:
            raise ChannelError("a server that does not know the secret")

    def _proof(self, side: str) -> bytes:
        return frames.proof(self._secret, side, self._url, self._server_nonce, self._nonce)

    def request(self, request: Request, patience: Patience | None = None) -> "Exchange":
        """Sends it. Raises `ChannelError` if the connection is closed, or takes nothing at the moment, and `OversizeError`.

        `patience`: how long may be waited for this answer; None: as the connection was made for.
        """
        if not self.is_open or self._is_full:
            raise ChannelError("the connection is closed, or the other end does not read")
        payload = frames.pack(request)
        if len(payload) > MAX_PAYLOAD:
            raise OversizeError("a request that is too long")
        self._number = (self._number + 1) % MAX_EXCHANGES
        while self._number in self._exchanges:
            self._number = (self._number + 1) % MAX_EXCHANGES
        patience = patience or self._patience
        silence = Silence(patience, self._loop.time())
        exchange = self._exchanges[self._number] = Exchange(self, self._number, silence, patience.shortest_s)
        self.write(frame(Kind.REQUEST, self._number, payload))
        if self._watching is None:
            self._watch()
        return exchange

    def forget(self, number: int) -> None:
        self._exchanges.pop(number, None)

    def write(self, data: bytes) -> None:
        """Leaves with all else that is written in this turn of the event loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def _watch(self) -> None:
        """Ends exchanges that have been silent for too long; a timer for each wait would cost more than the wait."""
        now = self._loop.time()
        for exchange in tuple(self._exchanges.values()):
            if error := exchange.silence.error(now):
                exchange.lose(error)
        shortest_s = min((exchange.shortest_s for exchange in self._exchanges.values()), default=None)
        self._watching = None if shortest_s is None else self._loop.call_later(min(WATCH_S, shortest_s / 4), self._watch)


class Exchange:
    """One request and its answer. To be closed, however it ends."""

    def __init__(self, connection: Connection, number: int, silence: Silence, shortest_s: float) -> None:
        self._connection = connection
        self._number = number
        self.silence = silence
        self.shortest_s = shortest_s
        """See `Patience`."""
        self._start: Start | None = None
        self._pieces: deque[bytes] = deque()
        self._taken = 0
        self._ended = False
        self._lost: ChannelError | None = None
        self._waiting: asyncio.Future[None] | None = None

    def received(self, got: Frame) -> None:
        if got.kind == Kind.DATA:
            self.silence.begins()
            self._pieces.append(got.payload)
        elif got.kind == Kind.END:
            self._ended = True
            self._connection.forget(self._number)
        elif got.kind == Kind.START:
            self._start = frames.unpack_start(got.payload)
        elif got.kind == Kind.FAILED:
            self._connection.forget(self._number)
            self._lost = ChannelError("the other end failed")
        else:
            raise ChannelError("a frame that no server sends")
        self._wake()

    def lose(self, why: ChannelError) -> None:
        """The rest will not come."""
        self._lost = why
        if self._connection.is_open:
            self._connection.write(frame(Kind.CANCEL, self._number))
        self._connection.forget(self._number)
        self._wake()

    async def start(self) -> Start:
        """The answer's beginning. Raises `ChannelError` when it will not come."""
        while self._start is None:
            await self._more()
        return self._start

    async def read(self) -> bytes:
        """All of the body that has come and was not read, as soon as there is some; empty at its end. Raises `ChannelError`."""
        while not self._pieces:
            if self._ended:
                return b""
            await self._more()
        data = self._pieces.popleft() if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._taken += len(data)
        if self._taken >= WINDOW // 2 and not self._ended and self._connection.is_open:
            self._connection.write(frame(Kind.CREDIT, self._number, frames.pack_count(self._taken)))
            self._taken = 0
        return data

    async def _more(self) -> None:
        if self._lost is not None:
            raise self._lost
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        self.silence.waits(loop.time())
        try:
            await self._waiting
        finally:
            self._waiting = None
            self.silence.reads()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def close(self) -> None:
        """Tells the other end to stop, unless it has ended. Twice does no harm."""
        if not self._ended and self._lost is None:
            self.lose(ChannelError("it was closed"))


async def connect(url: str, secret: bytes, silence_s: float) -> Connection:
    """To `tcp://host:port`. `silence_s`: how long an exchange may wait for the other end, by default. Raises `ChannelError`."""
    where = urlsplit(url)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(url, secret, silence_s), where.hostname or "", where.port or 0
            )
            try:
                await connection.ready
            except BaseException:
                connection.close()
                raise
    except (OSError, TimeoutError) as error:
        raise ChannelError("no connection") from error
    return connection


class Connections:
    """One connection to each server, made when it is needed, and made anew when it is lost. Belongs to an event loop."""

    def __init__(self, secret: bytes, silence_s: float) -> None:
        self._secret = secret
        self._silence_s = silence_s
        self._open: dict[str, Connection] = {}
        self._opening: dict[str, asyncio.Task[Connection]] = {}

    async def to(self, url: str) -> Connection:
        """Raises `ChannelError`."""
        connection = self._open.get(url)
        if connection is not None and connection.is_open:
            return connection
        if url not in self._opening:
            self._opening[url] = asyncio.ensure_future(connect(url, self._secret, self._silence_s))
            self._opening[url].add_done_callback(lambda task: self._opened(url, task))
        return await asyncio.shield(self._opening[url])

    def _opened(self, url: str, task: asyncio.Task[Connection]) -> None:
        del self._opening[url]
        self._open = {url: connection for url, connection in self._open.items() if connection.is_open}
        if not task.cancelled() and not task.exception():
            self._open[url] = task.result()

    def close(self) -> None:
        for task in self._opening.values():
            task.cancel()
        for connection in self._open.values():
            connection.close()
        self._open.clear()
