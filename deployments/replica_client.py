"""Sends a request to a chosen replica and streams its answer back."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from deployments.channel.client import Connections, Exchange
from deployments.channel.frames import Request
from deployments.channel.patience import Patience
from deployments.circuits import Reason
from deployments.errors import ChannelError, NoReplicaError, OversizeError, ReplicaLostError, SilentError, SilentReplicaError
from deployments.handles import remote
from deployments.private_app import FULL_MARK, RETRY_MARK
from deployments.replicas import Replica, ReplicaDirectory

RANKING_HEADER = "x-mygo-ranking"
"""Ids of replicas, best first: what Ray's handle is told of the ranking, through the request's arguments."""

log = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request to a replica's engine."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    patience: Patience | None = None
    """With the replica that answers. None: the client's own."""


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


Asking = Callable[[str], Mapping[str, str]]
"""Hears which replica is asked next, and says what headers the request gets for it."""


def _with_nothing(replica: str) -> Mapping[str, str]:
    return {}


class ReplicaClient(Protocol):
    """Sends a request to the first of a ranked list that takes it."""

    async def close(self) -> None:
        """Ends kept connections."""

    async def send(self, call: Call, ranked: Sequence[Replica], asking: Asking = _with_nothing) -> Answer:
        """The answer of the first replica that gives one, when the first byte of its body has come: until then nothing can have reached a
        client, and another replica may be asked. Raises `NoReplicaError` when none gives one, `SilentReplicaError` on a time-out, and
        `ReplicaLostError` where two were lost.
        """

    async def probe(self, call: Call, replica: Replica) -> Answer:
        """The answer of this replica and no other. Raises `NoReplicaError`."""


class DirectAnswer:
    """An answer over a private channel."""

    def __init__(self, replica: str, status: int, exchange: Exchange) -> None:
        self.replica = replica
        self.status = status
        self._exchange = exchange
        self._first: bytes | None = None
        self.failed: Callable[[Reason], None] = lambda reason: None
        """Is told if the answer breaks off, or stops."""

    async def begin(self) -> None:
        """Waits for the first piece of the body, or for its end. Raises `ReplicaLostError`."""
        self._first = await self._read()

    async def chunks(self) -> AsyncIterator[bytes]:
        chunk = await self._read() if self._first is None else self._first
        while chunk:
            yield chunk
            chunk = await self._read()

    async def _read(self) -> bytes:
        try:
            return await self._exchange.read()
        except SilentError as error:
            self.failed("between_tokens" if error.has_begun else "first_token")
            raise SilentReplicaError("the replica has stopped in its answer", has_begun=error.has_begun) from error
        except ChannelError as error:
            self.failed("lost")
            raise ReplicaLostError("the replica broke off its answer") from error

    async def close(self) -> None:
        self._exchange.close()


class HandleAnswer:
    """An answer through Ray's handle (`LlmReplica.relay`)."""

    replica = ""

    def __init__(self, status: int, stream: Any, first: bytes, between_s: float) -> None:
        """`first`: of its body, empty where there is none."""
        self.status = status
        self._stream = stream
        self._first = first
        self._between_s = between_s

    async def chunks(self) -> AsyncIterator[bytes]:
        chunk = self._first
        while chunk:
            yield chunk
            chunk = await self._next()

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._between_s):
                chunk: bytes = await anext(self._stream, b"")
        except asyncio.CancelledError:
            raise
        except TimeoutError as error:
            self._stream.cancel()
            raise SilentReplicaError("the replica has stopped in its answer", has_begun=True) from error
        except Exception as error:  # Ray raises errors of many types here
            raise ReplicaLostError("the replica broke off its answer") from error
        return chunk

    async def close(self) -> None:
        self._stream.cancel()


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """An answer that has been read."""

    replica: str
    status: int
    body: bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.body

    async def close(self) -> None: ...


class _RefusedError(Exception):
    """A replica did not take the request."""


class _FullError(_RefusedError):
    """It takes none at the moment. `answer` says so in its own words."""

    def __init__(self, answer: "WholeAnswer") -> None:
        super().__init__()
        self.answer = answer


class DirectReplicaClient:
    """The replicas' private channels, and Ray's handle as the last resort."""

    def __init__(self, directory: ReplicaDirectory, handle: Any, secret: str, silence_s: float) -> None:
        """`silence_s`: the patience with answers to calls that do not say theirs."""
        self._directory = directory
        self._handle = handle
        self._patience = Patience(silence_s, silence_s)
        self._connections = Connections(secret.encode(), silence_s)

    async def send(self, call: Call, ranked: Sequence[Replica], asking: Asking = _with_nothing) -> Answer:
        breaks = 0
        full: WholeAnswer | None = None
        for replica in ranked:
            try:
                return await self._begun(replace(call, headers={**call.headers, **asking(replica.id)}), replica)
            except _FullError as refusal:
                full = refusal.answer
                continue
            except _RefusedError:
                pass
            except SilentReplicaError:
                raise
            except ReplicaLostError:
                breaks += 1
                if breaks > 1:  # a request that ends two replicas may end them all
                    raise
            self._directory.suspend(replica.id)
        return full or await self._through_handle(call, ranked)

    async def _begun(self, call: Call, replica: Replica) -> DirectAnswer:
        """With the first piece of its body. Raises as `_ask` does. The replica's circuit hears of it all."""
        circuits = self._directory.circuits
        circuits.asked(replica.id)
        try:
            answer = await self._ask(call, replica)
            try:
                await answer.begin()
            except BaseException:
                await answer.close()
                raise
        except BaseException as error:
            if reason := _reason_of(error):
                circuits.failed(replica.id, reason)
            else:
                circuits.left(replica.id)
            raise
        circuits.answered(replica.id)
        answer.failed = partial(circuits.failed, replica.id)
        return answer

    async def _ask(self, call: Call, replica: Replica) -> DirectAnswer:
        """Raises `_RefusedError`, `ReplicaLostError` if the replica may have begun to work, `SilentReplicaError`, and `OversizeError`."""
        try:
            connection = await self._connections.to(replica.url)
            exchange = connection.request(_request(call), call.patience)
        except OversizeError:
            raise
        except ChannelError as error:
            log.warning("replica did not answer", extra={"replica": replica.id, "error": str(error)})
            raise _RefusedError from error
        try:
            start = await exchange.start()
        except SilentError as error:
            raise SilentReplicaError("the replica did not answer in time") from error
        except ChannelError as error:
            log.warning("replica lost", extra={"replica": replica.id, "error": str(error)})
            raise ReplicaLostError("the replica broke off before it answered") from error
        except BaseException:  # a client that left
            exchange.close()
            raise
        if FULL_MARK in start.headers:
            raise _FullError(await _read(DirectAnswer(replica.id, start.status, exchange)))
        if RETRY_MARK in start.headers:
            exchange.close()
            raise _RefusedError
        return DirectAnswer(replica.id, start.status, exchange)

    async def probe(self, call: Call, replica: Replica) -> Answer:
        try:
            return await self._ask(call, replica)
        except _FullError as refusal:
            return refusal.answer
        except (_RefusedError, ReplicaLostError) as error:
            raise NoReplicaError("the replica did not answer") from error

    async def _through_handle(self, call: Call, ranked: Sequence[Replica]) -> HandleAnswer:
        headers = {**call.headers, RANKING_HEADER: ",".join(replica.id for replica in ranked)}
        stream = remote(self._handle.options(stream=True).relay, call.method, call.path, headers, call.body)
        try:
            return await self._first_of(aiter(stream), call.patience or self._patience)
        except BaseException:  # a client that left, too, must not leave work behind
            stream.cancel()
            raise

    async def _first_of(self, stream: Any, patience: Patience) -> HandleAnswer:
        try:
            async with asyncio.timeout(patience.first_s):
                status, headers = await anext(stream)
                first = await anext(stream, b"")
        except TimeoutError as error:
            raise SilentReplicaError("the replica did not answer in time") from error
        except Exception as error:  # Ray raises errors of many types here
            raise NoReplicaError("no replica answered") from error
        if headers.get(RETRY_MARK[0].decode()) == RETRY_MARK[1].decode():
            raise NoReplicaError("every replica is stopping")
        return HandleAnswer(status, stream, first, patience.between_s)

    async def close(self) -> None:
        self._connections.close()


def _reason_of(error: BaseException) -> Reason | None:
    """None: that says nothing of the replica."""
    match error:
        case _FullError():
            return None
        case _RefusedError():
            return "refused"
        case SilentReplicaError():
            return "first_token"
        case ReplicaLostError():
            return "lost"
        case _:
            return None


async def _read(answer: DirectAnswer) -> WholeAnswer:
    """Raises `ReplicaLostError`."""
    try:
        return WholeAnswer(answer.replica, answer.status, b"".join([chunk async for chunk in answer.chunks()]))
    finally:
        await answer.close()


def _request(call: Call) -> Request:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in call.headers.items()]
    return Request(call.method, call.path, headers, call.body)
