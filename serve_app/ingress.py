"""The routes of the application, as a Starlette application over the pipeline and its services."""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from cache.entry import Vector
from deployments.embedding import Embedded
from deployments.engines.base import Message, Receive, Send
from deployments.errors import DeploymentError
from deployments.private_app import LOAD_PATH
from deployments.replica_client import Call
from deployments.replicas import Replica
from serve_app.admin_routes import AdminRoutes, NoKeysRoutes
from serve_app.admission.expected import CHARACTERS_A_TOKEN
from serve_app.anthropic.errors import body_of as message_error
from serve_app.anthropic.errors import refuse as refuse_message
from serve_app.anthropic.routes import PATH as MESSAGES
from serve_app.anthropic.routes import MessageRoutes
from serve_app.cache_routes import CacheRoutes
from serve_app.cache_transfer import CacheTransferRoutes
from serve_app.coalesce import Coalesced
from serve_app.content.texts import permitted_inputs
from serve_app.contexts.routes import ContextRoutes, NoContextRoutes
from serve_app.document_calls import DocumentCalls
from serve_app.door import Door, door_of
from serve_app.endpoint import Endpoint, Handler, HttpRequest, Refuse, Upload
from serve_app.errors import ApiError, InvalidRequestError, KeyringError, MethodError, NotFoundError, to_api_error
from serve_app.exchanges import Exchanges
from serve_app.files import FileRoutes
from serve_app.keyring.watch import Keyring
from serve_app.modelcache.routes import PATH as MODELCACHE
from serve_app.modelcache.routes import ModelCacheRoutes, refuse
from serve_app.modelcache.service import ModelCacheService
from serve_app.modelcache.websocket import ModelCacheSocket
from serve_app.openai.requests import EmbeddingRequest, Parser, parse_chat, parse_completion, parse_embedding
from serve_app.openai.responses import parse_response
from serve_app.openapi.route import PATH as DOCUMENT
from serve_app.openapi.route import DocumentRoute
from serve_app.parts import Parts
from serve_app.pipeline import Pipeline
from serve_app.relay import read_answer
from serve_app.replies import Reply, json_reply
from serve_app.responses import ResponseRoutes
from serve_app.tenants import Principal, caller_of
from serve_app.vector_store_files import VectorStoreFileRoutes
from serve_app.vector_stores import VectorStoreRoutes

PROBE_TIMEOUT_S = 2.0


class OpenAIRoutes:
    """Models, chat and text completions, embeddings."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._created = int(time.time())
        self._dimension: int | None = None
        """Of embeddings; None until somebody has asked for it."""

    def generate(self, parse: Parser) -> Handler:
        async def handler(request: HttpRequest) -> Reply:
            arrival = request.arrival
            if arrival is None:
                arrival = self._pipeline.arrive(parse(request.body), caller_of(request.headers, request.id, request.principal))
            return await self._pipeline.answer(arrival)

        return handler

    async def models(self, request: HttpRequest) -> Reply:
        return json_reply({"object": "list", "data": await self._models(request.principal)})

    async def model(self, request: HttpRequest) -> Reply:
        for model in await self._models(request.principal):
            if model["id"] == request.path_params["model"]:
                return json_reply(model)
        raise NotFoundError("The model does not exist.", param="model", code="model_not_found")

    async def _models(self, principal: Principal) -> list[dict[str, Any]]:
        """The engine's own list, which says what kind of engine it is, the model's aliases, and the encoder; of these, what the key may
        ask for.
        """
        llm, encoders = self._pipeline.config.llm.model, self._pipeline.config.embedding
        answer = await self._pipeline.client.send(Call("GET", "/v1/models", {}), self._pipeline.directory.replicas)
        served = msgspec.json.decode(await read_answer(answer))["data"]
        shown = [{key: value for key, value in model.items() if key not in ("permission", "root", "parent")} for model in served]
        aliases = [_called(name, model) for model in shown for name in llm.aliases if model["id"] == llm.name]
        encoder: dict[str, Any] = {
            "id": encoders.name,
            "object": "model",
            "created": self._created,
            "owned_by": "mygo",
        }
        asked = (*shown, *aliases, encoder, *(_called(name, encoder) for name in encoders.aliases))
        all_names = {name: names for names in (llm.names, encoders.names) for name in names}
        return [model for model in asked if any(map(principal.may_ask, all_names.get(model["id"], (model["id"],))))]

    async def embeddings(self, request: HttpRequest) -> Reply:
        asked = parse_embedding(request.body)
        config = self._pipeline.config.embedding
        if asked.model not in config.names or not any(map(request.principal.may_ask, config.names)):
            raise NotFoundError("The model does not exist, or it does not make embeddings.", param="model", code="model_not_found")
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if not all(texts):
            raise InvalidRequestError("input must not contain empty strings.", param="input", code="invalid_value")
        content = self._pipeline.content
        texts = await permitted_inputs(content.of(request.principal.tenant) if content else None, texts)
        ticket = self._pipeline.admission.take(request.principal, sum(map(len, texts)) / CHARACTERS_A_TOKEN)
        try:
            if asked.dimensions is not None and self._dimension is None:
                self._dimension = len((await self._pipeline.embedding.embed_one("x", "")).vector)
            if asked.dimensions not in (None, self._dimension):
                message = f"dimensions: this model's embeddings have {self._dimension}."
                raise InvalidRequestError(message, param="dimensions", code="invalid_value")
            embedded = await self._pipeline.embedding.embed(texts)
            ticket.used(sum(each.tokens for each in embedded))
        finally:
            ticket.end()
        return json_reply(_embedding_body(asked, config.name, embedded), headers=ticket.headers)


def _called(alias: str, model: dict[str, Any]) -> dict[str, Any]:
    return {**model, "id": alias, "mygo": {**model.get("mygo", {}), "alias_of": model["id"]}}


def _embedding_body(asked: EmbeddingRequest, model: str, embedded: list[Embedded]) -> dict[str, Any]:
    tokens = sum(each.tokens for each in embedded)
    data = [
        {"object": "embedding", "index": index, "embedding": _encode(each.vector, asked.encoding_format)}
        for index, each in enumerate(embedded)
    ]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _encode(vector: Vector, encoding: str) -> str | list[float]:
    values = np.ascontiguousarray(vector, dtype="<f4")
    if encoding == "base64":
        return base64.b64encode(values.tobytes()).decode()
    numbers: list[float] = values.tolist()
    return numbers


class ReportedLoad(msgspec.Struct):
    """What a replica says of its engine, over its private channel."""

    running: int
    waiting: int
    kv_usage: float
    draining: bool


class OperationsRoutes:
    """Health, readiness, metrics."""

    def __init__(self, pipeline: Pipeline, parts: Parts, scrape: Callable[[], Awaitable[bytes]], door: Door | None = None) -> None:
        """`door`: of keys. None: there are none."""
        self._pipeline = pipeline
        self._parts = parts
        self._scrape = scrape
        self._door = door
        self._probes = Coalesced()
        self._was_ready = False

    async def health(self, request: HttpRequest) -> Reply:
        """This process answers."""
        return json_reply({"status": "ok"})

    async def ready(self, request: HttpRequest) -> Reply:
        """At first when as many replicas answer as are configured and no part is still starting; then while one answers.

        Where there are keys, an administrator alone sees which replicas there are and how busy; and once it was ready, how many.
        """
        replicas: list[dict[str, Any]] = await self._probes.read("replicas", self._probe_all, 2 * PROBE_TIMEOUT_S)
        alive = sum(1 for replica in replicas if "running" in replica)
        wanted = self._pipeline.config.llm.replicas.min
        self._was_ready = self._was_ready or (alive >= wanted and self._parts.settled)
        ready = self._was_ready and alive > 0
        status: dict[str, Any] = {"status": "ready" if ready else "starting"}
        sees_all = await self._is_for_administrators(request)
        if sees_all or not self._was_ready:
            status |= {"replicas_wanted": wanted, "replicas_ready": alive, "parts": self._parts.states}
        if sees_all:
            status["replicas"] = replicas
        return json_reply(status, 200 if ready else 503, {} if ready else {"retry-after": "1"})

    async def _is_for_administrators(self, request: HttpRequest) -> bool:
        if self._door is None:
            return True
        try:
            return (await self._door.principal(request.headers.raw)).role == "admin"
        except (ApiError, KeyringError):
            return False

    async def _probe_all(self) -> list[dict[str, Any]]:
        return await asyncio.gather(*(self._probe(replica) for replica in self._pipeline.directory.replicas))

    async def _probe(self, replica: Replica) -> dict[str, Any]:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                answer = await self._pipeline.client.probe(Call("GET", LOAD_PATH, {}), replica)
                return {"id": replica.id, **msgspec.structs.asdict(msgspec.json.decode(await read_answer(answer), type=ReportedLoad))}
        except (DeploymentError, TimeoutError, msgspec.DecodeError) as error:
            return {"id": replica.id, "error": to_api_error(error).code}

    async def metrics(self, request: HttpRequest) -> Reply:
        """Of all tenants: where there are keys, an administrator's is needed."""
        if request.principal.key_id:
            request.principal.require_admin()
        return Reply(200, {}, "text/plain; version=0.0.4; charset=utf-8", await self._scrape())


class ByMethod:
    """One path's endpoints, so that a wrong method is told of all the right ones."""

    def __init__(self, endpoints: dict[str, Endpoint]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._endpoints[method](scope, receive, send)


PARSERS: Mapping[str, Parser] = {"/v1/chat/completions": parse_chat, "/v1/completions": parse_completion}
"""The routes that generate, and what reads their bodies."""
OPEN = frozenset({"/healthz", "/readyz", "/welcome", DOCUMENT})
"""Routes that need no key: those of probes, ModelCache's greeting, and what tells of all the others."""


def create_app(
    pipeline: Pipeline,
    parts: Parts,
    scrape: Callable[[], Awaitable[bytes]],
    modelcache: ModelCacheService | None = None,
    exchanges: Exchanges | None = None,
    keyring: Keyring | None = None,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """`parts`: those that the ingress waits for; `scrape`: the application's metrics as text; `keyring`: None where there are no keys."""
    limit = pipeline.config.ingress.max_body_bytes
    exchanges = exchanges or Exchanges(pipeline.metrics)

    door = door_of(keyring)

    def route(path: str, methods: Mapping[str, Handler | Upload], shape: Refuse | None = None) -> list[Route]:
        asked = None if path in OPEN else door
        by_method = {method: Endpoint(f"{method} {path}", handler, limit, exchanges, asked, shape) for method, handler in methods.items()}
        return [Route(path, ByMethod(by_method), methods=list(methods))]

    openai, operations = OpenAIRoutes(pipeline), OperationsRoutes(pipeline, parts, scrape, door if keyring else None)
    routes: list[BaseRoute] = [
        *route("/v1/models", {"GET": openai.models}),
        *route("/v1/models/{model:path}", {"GET": openai.model}),
        *(each for path, parse in PARSERS.items() for each in route(path, {"POST": openai.generate(parse)})),
        *route("/v1/responses", {"POST": openai.generate(parse_response)}),
        *(each for path, methods in MessageRoutes(pipeline).table().items() for each in route(path, methods, refuse_message)),
        *route("/v1/embeddings", {"POST": openai.embeddings}),
        *route("/healthz", {"GET": operations.health}),
        *route("/readyz", {"GET": operations.ready}),
        *route("/metrics", {"GET": operations.metrics}),
    ]
    documents = DocumentCalls(pipeline)
    tables: list[Mapping[str, Mapping[str, Handler | Upload]]] = [
        ResponseRoutes(pipeline).table(),
        VectorStoreRoutes(documents).table(),
        VectorStoreFileRoutes(documents).table(),
        FileRoutes(documents).table(),
        CacheRoutes(pipeline).table(),
        CacheTransferRoutes(pipeline).table(),
        AdminRoutes(keyring).table() if keyring else NoKeysRoutes().table(),
        ContextRoutes(pipeline, pipeline.contexts, clock).table() if pipeline.contexts else NoContextRoutes().table(),
    ]
    for table in tables:
        for path, methods in table.items():
            routes += route(path, methods)
    if modelcache:
        for path, methods in ModelCacheRoutes(modelcache).table().items():
            routes += route(path, methods, refuse)
        routes.append(WebSocketRoute(MODELCACHE, ModelCacheSocket(modelcache, door, limit, pipeline.metrics)))
    routes += route(DOCUMENT, {"GET": DocumentRoute(routes, OPEN, keys=keyring is not None).get})
    app = Starlette(routes=routes, exception_handlers={HTTPException: _routing_error})
    app.router.redirect_slashes = False  # it would send strangers, and what they carry, to whatever host their request names
    return app


async def _routing_error(request: Request, error: Exception) -> Response:
    """Unknown routes and methods, which never reach a handler."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    api_error: ApiError = (
        MethodError("This method is not allowed here.") if status == 405 else NotFoundError("There is no such route.", code="unknown_url")
    )
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    body = message_error(api_error) if request.url.path.startswith(MESSAGES) else api_error.body()
    return Response(msgspec.json.encode(body), api_error.status, headers, media_type="application/json")
