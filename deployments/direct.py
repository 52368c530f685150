"""Calls of another deployment's methods over private channels, at a tenth of what a call through Ray's handle takes.

A contract is a protocol whose annotated coroutines say what travels. Both ends take the types from there: nothing else can be called, and
nothing else can arrive.
"""

import asyncio
import inspect
import logging
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec
import numpy as np

from cache import errors as cache_errors
from cache.errors import CacheError
from deployments.channel.client import Connections, Exchange
from deployments.channel.frames import Request
from deployments.engines.base import Message, Receive, Send
from deployments.errors import ChannelError, OversizeError, PartError
from deployments.handles import remote
from deployments.replicas import ReplicaDirectory
from retrieval import errors as retrieval_errors
from retrieval.errors import RetrievalError

log = logging.getLogger("ray.serve")

_OK, _RAISED, _UNKNOWN = 200, 500, 404


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.astype(np.float32, copy=False).tobytes()
    raise NotImplementedError(f"{type(value).__name__} cannot travel")


def _typed(kind: type, value: Any) -> Any:
    """The only type that msgspec does not know is the vector."""
    return np.frombuffer(value, np.float32)


_encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode


@dataclass(frozen=True, slots=True)
class _Method:
    arguments: msgspec.msgpack.Decoder[tuple[Any, ...]]
    result: msgspec.msgpack.Decoder[Any]


def _methods(contract: type) -> dict[str, _Method]:
    return {name: _method(function) for name, function in vars(contract).items() if inspect.iscoroutinefunction(function)}


def _method(function: Any) -> _Method:
    hints = get_type_hints(function)
    returned = hints.pop("return")
    arguments = tuple.__class_getitem__(tuple(hints.values()))
    return _Method(msgspec.msgpack.Decoder(arguments, dec_hook=_typed), msgspec.msgpack.Decoder(returned, dec_hook=_typed))


_PARTS = ((cache_errors, CacheError), (retrieval_errors, RetrievalError))
_ERRORS: dict[str, type[Exception]] = {
    name: kind for module, base in _PARTS for name, kind in vars(module).items() if isinstance(kind, type) and issubclass(kind, base)
}


class _Raised(msgspec.Struct, array_like=True):
    """An error of the cache or retrieval tier, by name: such errors are part of a contract."""

    name: str
    arguments: list[str]
    """What it is made anew from, wherever it travels."""

    @classmethod
    def of(cls, error: Exception) -> "_Raised":
        """Of a kind that the other end may not know, the nearest base that it does."""
        name = next(kind.__name__ for kind in type(error).__mro__ if _ERRORS.get(kind.__name__) is kind)
        reduced: Any = error.__reduce__()
        return cls(name, [str(each) for each in reduced[1]])

    def error(self) -> Exception:
        kind = _ERRORS.get(self.name)
        return CacheError(*self.arguments) if kind is None else kind(*self.arguments)


class DirectApp:
    """An ASGI application that offers the methods of a contract; `target` implements it."""

    def __init__(self, contract: type, target: Any) -> None:
        self._methods = _methods(contract)
        self._target = target

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        name = scope["path"]
        method = self._methods.get(name)
        body = (await receive())["body"]
        if method is None:
            status, answer = _UNKNOWN, b""
        else:
            status, answer = await self._result(name, method, body)
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": answer})

    async def _result(self, name: str, method: _Method, body: bytes) -> tuple[int, bytes]:
        try:
            return _OK, _encode(await getattr(self._target, name)(*method.arguments.decode(body)))
        except (CacheError, RetrievalError) as error:
            return _RAISED, _encode(_Raised.of(error))


class DirectCalls:
    """Calls one replica after the other of those in `directory`; Ray's `handle`, with the same methods, where none can be reached.

    Belongs to an event loop.
    """

    def __init__(self, contract: type, directory: ReplicaDirectory, handle: Any, secret: str, limit_s: float) -> None:
        """`limit_s`: how long any call may take."""
        self._methods = _methods(contract)
        self._directory = directory
        self._handle = handle
        self._limit_s = limit_s
        self._connections = Connections(secret.encode(), limit_s)
        self._turn = 0

    async def call(self, name: str, *args: Any) -> Any:
        """Raises what the contract's method raises of the cache's and the retrieval's errors, `PartError`, and what a handle raises."""
        exchange = await self._sent(Request(name, name, [], _encode(args)))
        if exchange is None:
            async with asyncio.timeout(self._limit_s):
                return await remote(getattr(self._handle, name), *args)
        try:
            status, body = (await exchange.start()).status, await _whole(exchange)
        except ChannelError as error:
            raise PartError("a part of the application broke off") from error
        finally:
            exchange.close()
        if status == _OK:
            return self._methods[name].result.decode(body)
        if status == _RAISED:
            raise msgspec.msgpack.decode(body, type=_Raised).error()
        raise PartError("a part of the application does not know this call")

    async def _sent(self, request: Request) -> Exchange | None:
        """None: no replica can be reached, or a frame cannot hold it."""
        replicas = self._directory.replicas
        self._turn += 1
        first = self._turn % len(replicas) if replicas else 0
        for replica in (*replicas[first:], *replicas[:first]):
            try:
                return (await self._connections.to(replica.url)).request(request)
            except OversizeError:
                return None
            except ChannelError as error:
                log.warning("not reached directly", extra={"replica": replica.id, "error": str(error)})
                self._directory.suspend(replica.id)
        return None

    def close(self) -> None:
        self._connections.close()


async def _whole(exchange: Exchange) -> bytes:
    body = await exchange.read()
    while more := await exchange.read():
        body += more
    return body
