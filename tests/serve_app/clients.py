"""Clients of the whole application, in this process."""

import time
from collections.abc import Callable
from typing import Any

import httpx
from starlette.applications import Starlette

from serve_app.ingress import create_app
from serve_app.parts import Parts, State
from tests.serve_app.fakes import MODEL, World

CANARY = "canary_7f3a9"
ENCODER = "all-MiniLM-L6-v2"
METRICS = b"# TYPE mygo_requests counter\nmygo_requests_total 1.0\n"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "What is a cache?"}]}


def app_of(world: World, *, part: State = "ready", clock: Callable[[], float] = time.time) -> Starlette:
    parts = Parts({})
    parts.states["cache"] = part

    async def scrape() -> bytes:
        return METRICS

    return create_app(world.pipeline, parts, scrape, clock=clock)


def client_of(world: World, *, part: State = "ready", clock: Callable[[], float] = time.time) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app_of(world, part=part, clock=clock)), base_url="http://test")


def error_of(response: httpx.Response) -> Any:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert CANARY not in response.text
    return body["error"]
