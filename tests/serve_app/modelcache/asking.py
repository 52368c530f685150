"""Requests of ModelCache's clients, and the application that they ask."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route, WebSocketRoute

from serve_app.door import Door, OpenDoor
from serve_app.endpoint import Endpoint
from serve_app.exchanges import Exchanges
from serve_app.ingress import ByMethod
from serve_app.modelcache.fake import MemoryBackend
from serve_app.modelcache.routes import PATH, ModelCacheRoutes, refuse
from serve_app.modelcache.service import ModelCacheService
from serve_app.modelcache.websocket import ModelCacheSocket
from tests.serve_app.recorded import RecordedMetrics

Json = dict[str, Any]

MODEL = "CODEGPT-1008"
CANARY = "canary_7f3a9"
LIMIT = 20_000
SYSTEM = "You are an AI code assistant and you must provide neutral and harmless answers to help users solve code-related problems."
QUESTION = "Who are you?"
ANSWER = "Hello, I am an intelligent assistant. How can I assist you?"


def dialog(question: str = QUESTION, system: str = SYSTEM) -> list[Json]:
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def request(kind: str, model: object = MODEL, **fields: Any) -> Json:
    return {"type": kind, "scope": {"model": model}, **fields}


def query(question: str = QUESTION, model: object = MODEL) -> Json:
    return request("query", model, query=dialog(question))


def insert(*questions: str, model: object = MODEL, answer: str = ANSWER) -> Json:
    return request("insert", model, chat_info=[{"query": dialog(each), "answer": answer} for each in questions or (QUESTION,)])


def delete(ids: list[Any], model: object = MODEL) -> Json:
    return request("remove", model, remove_type="delete_by_id", id_list=ids)


def truncate(model: object = MODEL) -> Json:
    return request("remove", model, remove_type="truncate_by_model")


def query_body(code: int = 0, words: str = "", delta_time: str | int = 0) -> Json:
    return {"errorCode": code, "errorDesc": words, "cacheHit": False, "delta_time": delta_time, "hit_query": "", "answer": ""}


class SetClock:
    """A clock that moves by `step` each time it is read."""

    def __init__(self, step: float = 0.03) -> None:
        self.now = 100.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@dataclass
class Server:
    """The service and its routes, as the ingress has them."""

    backend: MemoryBackend = field(default_factory=MemoryBackend)
    metrics: RecordedMetrics = field(default_factory=RecordedMetrics)
    blocked: tuple[str, ...] = ()
    max_in_flight: int = 4
    door: Door = field(default_factory=OpenDoor)

    def __post_init__(self) -> None:
        self.service = ModelCacheService(self.backend, self.metrics, self.blocked, SetClock())
        self.socket = ModelCacheSocket(self.service, self.door, LIMIT, self.metrics, self.max_in_flight)
        self.app = Starlette(routes=[*self._rest(), WebSocketRoute(PATH, self.socket)])

    def _rest(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = []
        for path, methods in ModelCacheRoutes(self.service).table().items():
            endpoints = {
                method: Endpoint(f"{method} {path}", handler, LIMIT, Exchanges(self.metrics), self.door, refuse)
                for method, handler in methods.items()
            }
            routes.append(Route(path, ByMethod(endpoints), methods=list(methods)))
        return routes

    @property
    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test")

    async def ask(self, payload: object, tenant: str | None = None) -> Json:
        """The body of an answer with HTTP status 200."""
        status, body = await self.service.handle(tenant, payload, "r-1")
        assert status == 200
        json.dumps(body)
        return body
