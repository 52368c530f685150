"""Sends a request to a chosen replica and streams its answer back."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from deployments.errors import NoReplicaError, ReplicaLostError
from deployments.private_server import KEEP_ALIVE_S, RETRY_HEADER, SECRET_HEADER
from deployments.replicas import Replica, ReplicaDirectory

log = logging.getLogger("ray.serve")

CONNECT_TIMEOUT_S = 2.0
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request to a replica's engine."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


class Answer(Protocol):
    """A replica's answer: status and headers are known, the body may still be on its way."""

    @property
    def status(self) -> int: ...

    @property
    def replica(self) -> str:
        """Id of the replica that answers; empty when Ray chose it."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body, byte for byte, as it arrives. Raises `ReplicaLostError` when it breaks off. To be consumed once."""

    async def close(self) -> None:
        """Ends the exchange; before the body's end, that aborts the request in the engine. Calling it twice is harmless."""


class ReplicaClient(Protocol):
    """Sends a request to the first of a ranked list that takes it."""

    async def close(self) -> None:
        """Ends kept connections."""

    async def send(self, call: Call, ranked: Sequence[Replica]) -> Answer:
        """The answer of the first replica that gives one. Raises `NoReplicaError` when none does, `ReplicaLostError` on a time-out."""

    async def probe(self, call: Call, replica: Replica) -> Answer:
        """The answer of this replica and no other. Raises `NoReplicaError`."""


class DirectAnswer:
    """An answer over a direct connection."""

    def __init__(self, replica: str, response: aiohttp.ClientResponse) -> None:
        self.replica = replica
        self.status = response.status
        self._response = response

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ReplicaLostError("the replica broke off its answer") from error

    async def close(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class HandleAnswer:
    """An answer through Ray's handle (`LlmReplica.relay`)."""

    replica = ""

    def __init__(self, status: int, stream: Any) -> None:
        self.status = status
        self._stream = stream

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except asyncio.CancelledError:
            raise
        except Exception as error:  # Ray raises errors of many types here
            raise ReplicaLostError("the replica broke off its answer") from error

    async def close(self) -> None:
        self._stream.cancel()


class DirectReplicaClient:
    """HTTP to the replicas' private servers on kept-alive connections, and Ray's handle as the last resort."""

    def __init__(self, directory: ReplicaDirectory, handle: Any, secret: str, read_timeout_s: float) -> None:
        self._directory = directory
        self._handle = handle
        # Of an answer only the bytes are passed on, so they must not be compressed.
        self._headers = {SECRET_HEADER: secret, "accept-encoding": "identity"}
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=read_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, call: Call, ranked: Sequence[Replica]) -> Answer:
        for replica in ranked:
            if answer := await self._try(call, replica):
                return answer
            self._directory.suspend(replica.id)
        return await self._through_handle(call)

    async def _try(self, call: Call, replica: Replica) -> DirectAnswer | None:
        """None when the replica gave no byte, or said that another should be asked."""
        headers = {**call.headers, **self._headers}
        try:
            response = await self._pool().request(
                call.method, replica.url + call.path, data=call.body, headers=headers, allow_redirects=False
            )
        except aiohttp.SocketTimeoutError as error:  # it may still be computing: asking another would compute it twice
            raise ReplicaLostError("the replica did not answer in time") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("replica did not answer", extra={"replica": replica.id, "error": type(error).__name__})
            return None
        if RETRY_HEADER in response.headers:
            response.release()
            return None
        return DirectAnswer(replica.id, response)

    async def probe(self, call: Call, replica: Replica) -> Answer:
        if answer := await self._try(call, replica):
            return answer
        raise NoReplicaError("the replica did not answer")

    async def _through_handle(self, call: Call) -> HandleAnswer:
        stream = self._handle.options(stream=True).relay.remote(call.method, call.path, dict(call.headers), call.body)
        try:
            return await self._first_of(stream)
        except BaseException:  # a client that left, too, must not leave work behind
            stream.cancel()
            raise

    async def _first_of(self, stream: Any) -> HandleAnswer:
        try:
            async with asyncio.timeout(self._timeout.sock_read):
                status, headers = await anext(aiter(stream))
        except TimeoutError as error:
            raise ReplicaLostError("the replica did not answer in time") from error
        except Exception as error:  # Ray raises errors of many types here
            raise NoReplicaError("no replica answered") from error
        if RETRY_HEADER in headers:
            raise NoReplicaError("every replica is stopping")
        return HandleAnswer(status, stream)

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S / 2)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                auto_decompress=False,
                read_bufsize=CHUNK_BYTES,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        if self._session:
            await self._session.close()
