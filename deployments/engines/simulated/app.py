"""The HTTP API: vLLM's dialect of OpenAI's routes, on one engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Protocol
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from deployments.config import ModelConfig, SimulatedEngineConfig
from deployments.engines.base import Load
from deployments.engines.simulated import tokenizer
from deployments.engines.simulated.encoding import CHAT, COMPLETION, Dialect, Encoder, encode
from deployments.engines.simulated.generation import ClientGoneError, Generation, Task
from deployments.engines.simulated.messages import CountRequest, MessageEncoder, MessagesRequest
from deployments.engines.simulated.protocol import (
    ApiError,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    Sampling,
    TokenizeRequest,
    parse,
)
from deployments.engines.simulated.responses import ResponseEncoder, ResponsesRequest
from deployments.errors import EngineDeadError

_CLIENT_CLOSED_REQUEST = 499


class Backend(Protocol):
    """What the API needs of the engine."""

    config: SimulatedEngineConfig
    model: ModelConfig
    created: int

    @property
    def killed(self) -> bool:
        """True once connections must break instead of ending with an error event."""

    def submit(self, task: Task) -> Generation:
        """Raises `EngineDeadError`."""

    async def reset_prefix_cache(self) -> bool: ...
    def load(self) -> Load: ...
    async def check_health(self) -> None: ...


class AnswerEncoder(Protocol):
    """An answer as bytes: whole, or as the events of a stream."""

    def full(self) -> bytes: ...
    def roles(self) -> bytes: ...
    def chunks(self, indices: list[int]) -> bytes: ...
    def closing(self) -> bytes: ...
    def failed(self, body: dict[str, Any]) -> bytes: ...


def build_app(backend: Backend) -> Starlette:
    api = _Api(backend)
    routes = [
        Route("/health", api.health),
        Route("/load", api.load),
        Route("/v1/models", api.models),
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/v1/completions", api.completions, methods=["POST"]),
        Route("/v1/responses", api.responses, methods=["POST"]),
        Route("/v1/messages", api.messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", api.count_tokens, methods=["POST"]),
        Route("/tokenize", api.tokenize, methods=["POST"]),
        Route("/detokenize", api.detokenize, methods=["POST"]),
        Route("/reset_prefix_cache", api.reset_prefix_cache, methods=["POST"]),
    ]
    handlers: Any = {ApiError: _api_error, EngineDeadError: _engine_dead, ClientDisconnect: _client_gone, HTTPException: _http_error}
    return Starlette(routes=routes, exception_handlers=handlers)


class _Api:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def health(self, request: Request) -> Response:
        try:
            await self._backend.check_health()
        except EngineDeadError:
            return Response(status_code=503)
        return Response()

    async def load(self, request: Request) -> Response:
        return _json({"server_load": self._backend.load().ongoing})

    async def models(self, request: Request) -> Response:
        card = {
            "id": self._backend.model.name,
            "object": "model",
            "created": self._backend.created,
            "owned_by": "mygo-simulated",
            "max_model_len": self._backend.config.max_model_len,
            "mygo": {"engine": "simulated"},
        }
        adapters = [{**card, "id": name, "parent": card["id"]} for name in self._backend.model.adapters]
        return _json({"object": "list", "data": [card, *adapters]})

    async def chat(self, request: Request) -> Response:
        return await self._generate(request, parse(await request.body(), ChatRequest), CHAT)

    async def completions(self, request: Request) -> Response:
        return await self._generate(request, parse(await request.body(), CompletionRequest), COMPLETION)

    async def responses(self, request: Request) -> Response:
        wanted = parse(await request.body(), ResponsesRequest)
        generation = self._submit(wanted)
        return await self._answer(request, wanted, generation, ResponseEncoder(wanted, generation, _id_of(request), self._name(wanted)))

    async def messages(self, request: Request) -> Response:
        wanted = parse(await request.body(), MessagesRequest)
        generation = self._submit(wanted)
        return await self._answer(request, wanted, generation, MessageEncoder(generation, _id_of(request), self._name(wanted)))

    async def count_tokens(self, request: Request) -> Response:
        return _json({"input_tokens": len(parse(await request.body(), CountRequest).tokens())})

    async def tokenize(self, request: Request) -> Response:
        wanted = parse(await request.body(), TokenizeRequest)
        tokens = wanted.tokens()
        texts = tokenizer.token_texts(tokens) if wanted.return_token_strs else None
        longest = self._backend.config.max_model_len
        return _json({"count": len(tokens), "max_model_len": longest, "tokens": tokens, "token_strs": texts})

    async def detokenize(self, request: Request) -> Response:
        return _json({"prompt": tokenizer.decode(parse(await request.body(), DetokenizeRequest).tokens)})

    async def reset_prefix_cache(self, request: Request) -> Response:
        return _json({"success": await self._backend.reset_prefix_cache()})

    async def _generate(self, request: Request, wanted: Sampling, dialect: Dialect) -> Response:
        generation = self._submit(wanted)
        encoder = Encoder(dialect, generation, _id_of(request), self._name(wanted), wanted.include_usage)
        return await self._answer(request, wanted, generation, encoder)

    def _submit(self, wanted: Sampling) -> Generation:
        model = self._backend.model
        if wanted.model and wanted.model != model.name and wanted.model not in model.adapters:
            raise ApiError("The model does not exist.", param="model", status=404, type_="NotFoundError")
        task = wanted.task(self._backend.config)
        return self._backend.submit(replace(task, adapter=wanted.model) if wanted.model in model.adapters else task)

    def _name(self, wanted: Sampling) -> str:
        """The adapter's, if it is to answer."""
        return wanted.model or self._backend.model.name

    async def _answer(self, request: Request, wanted: Sampling, generation: Generation, encoder: AnswerEncoder) -> Response:
        if wanted.stream:
            return _EventStream(self._backend, generation, encoder)
        return await _answer(request, generation, encoder)


def _id_of(request: Request) -> str:
    return request.headers.get("x-request-id") or uuid4().hex


async def _answer(request: Request, generation: Generation, encoder: AnswerEncoder) -> Response:
    try:
        async with _aborted_on_disconnect(generation, request.receive):
            await generation.finish()
    except ClientGoneError as error:
        return await _client_gone(request, error)
    return Response(encoder.full(), media_type="application/json")


class _EventStream(Response):
    """The answer as server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, backend: Backend, generation: Generation, encoder: AnswerEncoder) -> None:
        # Without Response's own __init__, which would announce a length.
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-cache"})
        self._backend = backend
        self._generation = generation
        self._encoder = encoder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with _aborted_on_disconnect(self._generation, receive):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await self._relay(send)
        except (ClientGoneError, OSError):  # OSError: a server that tells of a client's leaving by its `send`
            return
        except EngineDeadError as error:
            if self._backend.killed:
                raise
            await _send(send, self._encoder.failed(_dead_body(error)), more=False)

    async def _relay(self, send: Send) -> None:
        missing = self._generation.completion_tokens
        opening = self._encoder.roles()
        while missing:
            indices = await self._generation.take()
            missing -= len(indices)
            await _send(send, opening + self._encoder.chunks(indices))
            opening = b""
        await _send(send, self._encoder.closing(), more=False)


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


@asynccontextmanager
async def _aborted_on_disconnect(generation: Generation, receive: Receive) -> AsyncIterator[None]:
    """Whatever way the block is left, and as soon as the client leaves, the engine stops working on the request."""
    watcher = asyncio.create_task(_watch(generation, receive))
    try:
        yield
    finally:
        watcher.cancel()
        generation.close()


async def _watch(generation: Generation, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    generation.fail(ClientGoneError())
    generation.close()


def _json(content: Any, status: int = 200) -> Response:
    return Response(encode(content), status, media_type="application/json")


def _dead_body(error: EngineDeadError) -> dict[str, Any]:
    return ApiError(str(error), status=500, type_="InternalServerError").body


async def _api_error(request: Request, error: ApiError) -> Response:
    return _json(error.body, error.status)


async def _engine_dead(request: Request, error: EngineDeadError) -> Response:
    return _json(_dead_body(error), 500)


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


async def _http_error(request: Request, error: HTTPException) -> Response:
    phrase = HTTPStatus(error.status_code).phrase
    body = ApiError(error.detail, status=error.status_code, type_=phrase).body
    response = _json(body, error.status_code)
    response.headers.update(error.headers or {})
    return response
