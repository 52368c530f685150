"""The service on a server of `grpc.aio` in this process, and a client of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from serve_app.door import Door, OpenDoor
from serve_app.exchanges import Exchanges
from serve_app.grpc import llm_service_pb2 as pb
from serve_app.grpc.llm_service_pb2_grpc import LLMServiceStub, add_LLMServiceServicer_to_server
from serve_app.grpc.service import LLMService
from tests.serve_app.fakes import MODEL, World


@asynccontextmanager
async def served(world: World, door: Door | None = None, **options: Any) -> AsyncIterator[Any]:
    """A stub. `options`: of the service."""
    server = grpc.aio.server()
    add_LLMServiceServicer_to_server(LLMService(world.pipeline, Exchanges(world.metrics), door or OpenDoor(), **options), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield LLMServiceStub(channel)
    finally:
        await server.stop(None)


def chat(text: str = "What is a cache?", **fields: Any) -> pb.ChatRequest:
    return pb.ChatRequest(**{"model": MODEL, "messages": [pb.Message(role="user", content=text)], **fields})


@dataclass(frozen=True)
class Failed:
    """What a call ended with."""

    code: str
    details: str
    trailers: dict[str, str]


async def failed(call: Any) -> Failed:
    """`call`: of any kind; its answer, or the rest of it, is read."""
    try:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return Failed(error.code().name, error.details() or "", dict(error.trailing_metadata() or ()))
    raise AssertionError("the call did not fail")
