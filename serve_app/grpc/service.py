"""The methods of `LLMService`. Each runs the endpoint of the HTTP route that does the same, in this process.

So a call comes in by the same door, is checked, counted, logged and answered by the same code, and a client that leaves is a
disconnect. Ray calls the method of the ingress that has the RPC's name, and gives it gRPC's context as `grpc_context`; a server of
`grpc.aio` may call them as well.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import Message

from deployments.channel.asgi import relayed
from deployments.channel.frames import Request, Start
from deployments.errors import ChannelError
from serve_app.config import is_loopback
from serve_app.door import Door
from serve_app.endpoint import REQUEST_ID_HEADER, Endpoint, Handler, HttpRequest, request_id_of
from serve_app.errors import TooLargeError
from serve_app.exchanges import Exchanges
from serve_app.grpc import answers, requests
from serve_app.grpc import llm_service_pb2 as pb
from serve_app.grpc.requests import ToJson
from serve_app.grpc.statuses import Failure, Trailers, failure, failure_in, trailers
from serve_app.ingress import OpenAIRoutes
from serve_app.openai import sse
from serve_app.openai.requests import parse_chat, parse_completion
from serve_app.pipeline import Pipeline
from serve_app.replies import Reply

M = TypeVar("M", bound=Any)
METHODS = ("Chat", "ChatStream", "Complete", "CompleteStream", "Embed", "ListModels")
_RAYS_ID = "request_id"
_FRAMING = frozenset({"content-length", "content-type", REQUEST_ID_HEADER})
"""What metadata says that is HTTP's, or said by us."""
_BROKEN = failure(500, b"", {})
_ELSEWHERE = Failure(grpc.StatusCode.PERMISSION_DENIED, "This server is for its own machine only.", [])


class Context(Protocol):
    """What is used of gRPC's context: Ray's copy has it, and that of `grpc.aio`."""

    def invocation_metadata(self) -> Any: ...
    def trailing_metadata(self) -> Any: ...
    def set_trailing_metadata(self, metadata: Any) -> None: ...
    def set_code(self, code: grpc.StatusCode) -> None: ...
    def set_details(self, details: str) -> None: ...
    def peer(self) -> str: ...


class LLMService:
    """One for each ingress replica. `is_local`: clients on other machines are refused, as HTTP's port is on a loopback address; Ray's gRPC
    servers listen on all of them.
    """

    def __init__(self, pipeline: Pipeline, exchanges: Exchanges, door: Door, *, is_local: bool = False) -> None:
        self._is_local = is_local
        openai = OpenAIRoutes(pipeline)
        limit = pipeline.config.ingress.max_body_bytes

        def endpoint(name: str, handler: Handler) -> Endpoint:
            return Endpoint(f"gRPC {name}", handler, limit, exchanges, door)

        chat, completion = openai.generate(parse_chat), openai.generate(parse_completion)
        self._endpoints = {
            "Chat": endpoint("Chat", _translated(chat, requests.chat(stream=False), limit)),
            "ChatStream": endpoint("ChatStream", _translated(chat, requests.chat(stream=True), limit)),
            "Complete": endpoint("Complete", _translated(completion, requests.completion(stream=False), limit)),
            "CompleteStream": endpoint("CompleteStream", _translated(completion, requests.completion(stream=True), limit)),
            "Embed": endpoint("Embed", _translated(openai.embeddings, requests.embedding, limit)),
            "ListModels": endpoint("ListModels", openai.models),
        }

    async def Chat(self, request: pb.ChatRequest, grpc_context: Context) -> pb.ChatResponse:
        return await self._whole("Chat", request, grpc_context, answers.chat) or pb.ChatResponse()

    async def ChatStream(self, request: pb.ChatRequest, grpc_context: Context) -> AsyncIterator[pb.ChatChunk]:
        async with aclosing(self._stream("ChatStream", request, grpc_context, answers.chat_chunk)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def Complete(self, request: pb.CompleteRequest, grpc_context: Context) -> pb.CompleteResponse:
        return await self._whole("Complete", request, grpc_context, answers.completion) or pb.CompleteResponse()

    async def CompleteStream(self, request: pb.CompleteRequest, grpc_context: Context) -> AsyncIterator[pb.CompleteChunk]:
        async with aclosing(self._stream("CompleteStream", request, grpc_context, answers.completion_chunk)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def Embed(self, request: pb.EmbedRequest, grpc_context: Context) -> pb.EmbedResponse:
        return await self._whole("Embed", request, grpc_context, answers.embedding) or pb.EmbedResponse()

    async def ListModels(self, request: pb.ListModelsRequest, grpc_context: Context) -> pb.ListModelsResponse:
        return await self._whole("ListModels", request, grpc_context, answers.models) or pb.ListModelsResponse()

    async def _whole(self, name: str, request: Message, context: Context, read: Callable[[bytes], M]) -> M | None:
        """None: the call has failed, as its context says."""
        call = _Call(name, request, context)
        if self._is_elsewhere(context):
            call.fail(_ELSEWHERE)
            return None
        try:
            async with relayed(self._endpoints[name], call.http) as (start, pieces):
                raw = b"".join([piece async for piece in pieces])
        except ChannelError:  # the endpoint has logged why
            call.fail(_BROKEN)
            return None
        headers = call.began(start)
        if start.status != 200:
            call.fail(failure(start.status, raw, headers))
            return None
        answer = read(raw)
        if "meta" in answer.DESCRIPTOR.fields_by_name:
            answer.meta.CopyFrom(answers.meta(headers, call.id))
        return answer

    async def _stream(self, name: str, request: Message, context: Context, read: Callable[[bytes], M]) -> AsyncGenerator[M, None]:
        call = _Call(name, request, context)
        if self._is_elsewhere(context):
            call.fail(_ELSEWHERE)
            return
        try:
            async with relayed(self._endpoints[name], call.http) as (start, pieces):
                headers = call.began(start)
                if start.status != 200:
                    call.fail(failure(start.status, b"".join([piece async for piece in pieces]), headers))
                    return
                meta: pb.Meta | None = answers.meta(headers, call.id)
                events, ended = sse.WholeEvents(drop_usage=False), False
                async for piece in pieces:  # to the end, whatever it says: what is not read is of a client that has left
                    for payload in sse.payloads(events.feed(piece)):
                        if ended:
                            continue
                        if failed := failure_in(payload):
                            call.fail(failed)
                        ended = failed is not None or payload == b"[DONE]"
                        if ended:
                            continue
                        chunk = read(payload)
                        if meta:
                            chunk.meta.CopyFrom(meta)
                            meta = None
                        yield chunk
                if not ended:
                    call.fail(_BROKEN)
        except ChannelError:
            call.fail(_BROKEN)

    def _is_elsewhere(self, context: Context) -> bool:
        return self._is_local and not is_of_this_machine(context.peer())


class _Call:
    """One call: the HTTP request that says the same, and how the call ends."""

    def __init__(self, name: str, request: Message, context: Context) -> None:
        self._context = context
        metadata = [(key, value) for key, value in context.invocation_metadata() if isinstance(value, str)]
        given = dict(metadata).get(REQUEST_ID_HEADER) or dict(context.trailing_metadata()).get(_RAYS_ID)
        self.id = request_id_of(given.encode() if given else None)
        headers = [(key.encode(), value.encode()) for key, value in metadata if key not in _FRAMING]
        headers.append((REQUEST_ID_HEADER.encode(), self.id.encode()))
        self.http = Request("POST", f"/{pb.DESCRIPTOR.package}.LLMService/{name}", headers, request.SerializeToString())
        self._end([])

    def began(self, start: Start) -> dict[str, str]:
        """The headers of the answer."""
        headers = {name.decode(): value.decode("latin-1") for name, value in start.headers}
        self._end(trailers(headers))
        return headers

    def fail(self, failed: Failure) -> None:
        """Nothing is raised: Ray would log that as an error of the application's, and leave out the metadata."""
        self._context.set_code(failed.code)
        self._context.set_details(failed.details)
        self._end(failed.trailers)

    def _end(self, trailing: Trailers) -> None:
        self._context.set_trailing_metadata([(REQUEST_ID_HEADER, self.id), *trailing])


def _translated(handler: Handler, to_json: ToJson, limit: int) -> Handler:
    """The handler for requests whose body is a message."""

    async def translated(request: HttpRequest) -> Reply:
        body = to_json(request.body)
        if len(body) > limit:  # control characters take six times as much in JSON
            raise TooLargeError(f"The request takes more than {limit} bytes in JSON.", code="body_too_large")
        return await handler(replace(request, body=body))

    return translated


def is_of_this_machine(peer: str) -> bool:
    """By gRPC's name of a connection's other end, such as `ipv4:127.0.0.1:4711`."""
    family, _, rest = unquote(peer).partition(":")
    return family == "unix" or is_loopback(rest.rpartition(":")[0].strip("[]"))
