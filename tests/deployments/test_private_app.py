"""What a replica's private channel serves, and what it refuses."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from deployments.engines.base import ASGIApp, KvEventSource, Load, Message, Receive, Send
from deployments.errors import EngineDeadError
from deployments.private_app import LOAD_PATH, PrivateApp
from tests.deployments.servers import eventually


class FakeEngine:
    """An engine whose application answers with a status, or holds its stream open."""

    block_size = 16
    reuses_tokens = False
    max_model_len = 100

    def __init__(self) -> None:
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] | None = [(b"content-type", b"text/plain")]
        self.dead = False
        self.holds = False
        self.left = False
        self.paths: list[str] = []

    @property
    def app(self) -> ASGIApp:
        return self._answer

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        start = {"type": "http.response.start", "status": self.status}
        await send(start if self.headers is None else {**start, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"hello", "more_body": self.holds})
        if self.holds:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left = True

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def load(self) -> Load:
        return Load(running=3, waiting=2, kv_usage=0.5)

    def kv_event_sources(self) -> tuple[KvEventSource, ...]:
        return ()

    async def render(self, path: str, body: bytes) -> list[int] | None:
        return [len(path), *body] if body else None

    async def reset_prefix_cache(self) -> bool:
        return True

    async def check_health(self) -> None:
        if self.dead:
            raise EngineDeadError


@dataclass
class Answered:
    """What a client of the application got, or is still getting."""

    app: PrivateApp
    method: str
    path: str
    got: list[Message] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> "Answered":
        await self.app({"type": "http", "method": self.method, "path": self.path, "headers": []}, self._receive, self._send)
        return self

    async def _receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.got.append(message)

    @property
    def status(self) -> int:
        return int(self.got[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.got[0].get("headers", ())}

    @property
    def json(self) -> Any:
        return json.loads(b"".join(message.get("body", b"") for message in self.got[1:]))


async def answered(app: PrivateApp, method: str, path: str) -> Answered:
    return await Answered(app, method, path).run()


@pytest.fixture
def app(engine: FakeEngine) -> PrivateApp:
    return PrivateApp(engine)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


# Load, draining, death


async def test_requests_reach_the_engine(engine: FakeEngine, app: PrivateApp) -> None:
    assert (await answered(app, "POST", "/v1/x")).status == 200
    assert engine.paths == ["/v1/x"]


async def test_the_load_is_answered_without_the_engines_application(engine: FakeEngine, app: PrivateApp) -> None:
    calm = (await answered(app, "GET", LOAD_PATH)).json
    app.draining = True
    draining = (await answered(app, "GET", LOAD_PATH)).json
    assert calm == {"running": 3, "waiting": 2, "kv_usage": 0.5, "draining": False}
    assert draining == {**calm, "draining": True}
    assert engine.paths == []


async def test_a_draining_replica_refuses_work_as_safe_to_retry(engine: FakeEngine, app: PrivateApp) -> None:
    app.draining = True
    refused = await answered(app, "POST", "/v1/x")
    assert (refused.status, refused.headers["x-mygo-retry"]) == (503, "1")
    assert refused.json["error"]["type"] == "draining"
    assert (await answered(app, "GET", "/health")).status == 200
    assert engine.paths == ["/health"]


async def test_draining_does_not_end_what_runs(engine: FakeEngine, app: PrivateApp) -> None:
    engine.holds = True
    stream = Answered(app, "POST", "/v1/x")
    running = asyncio.create_task(stream.run())
    await eventually(lambda: len(stream.got) == 2)
    app.draining = True
    await asyncio.sleep(0)
    assert (engine.left, app.open) == (False, 1)
    stream.left.set()
    await running
    assert (engine.left, app.open) == (True, 0)


FAILURES = [(500, True, True), (503, True, True), (500, False, False), (200, True, False), (400, True, False)]


@pytest.mark.parametrize(("status", "dead", "marked"), FAILURES)
async def test_only_a_dead_engines_failure_is_safe_to_retry(
    engine: FakeEngine, app: PrivateApp, status: int, dead: bool, marked: bool
) -> None:
    engine.status, engine.dead = status, dead
    response = await answered(app, "POST", "/v1/x")
    assert response.status == status
    assert ("x-mygo-retry" in response.headers) == marked
    assert response.headers["content-type"] == "text/plain"


async def test_a_failure_without_headers_can_be_marked(engine: FakeEngine, app: PrivateApp) -> None:
    """ASGI lets an application leave them out."""
    engine.status, engine.dead, engine.headers = 500, True, None
    assert (await answered(app, "POST", "/v1/x")).headers["x-mygo-retry"] == "1"
