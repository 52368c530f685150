"""What a replica's private channel serves, and what it refuses."""

import asyncio
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from deployments import private_app
from deployments.engines.base import ASGIApp, KvEventSource, Load, Message, Receive, Send
from deployments.errors import EngineDeadError
from deployments.private_app import LOAD_PATH, PrivateApp
from deployments.reports import RENDER_PATH, WATCH_PATH, Report, ReportReader
from tests.deployments.servers import eventually


class FakeEngine:
    """An engine whose application answers with a status, or holds its stream open."""

    block_size = 16
    reuses_tokens = False
    control_tokens: Sequence[str] = ()
    max_model_len = 100
    max_running = 8
    kv_blocks = 8

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

    async def encode(self, texts: Sequence[str]) -> list[Sequence[int]] | None:
        return [list(text.encode()) for text in texts]

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
    sent: bytes = b""
    given: dict[str, str] = field(default_factory=dict)
    got: list[Message] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> "Answered":
        headers = [(name.encode(), value.encode()) for name, value in self.given.items()]
        await self.app({"type": "http", "method": self.method, "path": self.path, "headers": headers}, self._receive, self._send)
        return self

    async def _receive(self) -> Message:
        if self.path == RENDER_PATH:
            return {"type": "http.request", "body": self.sent}
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
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.got[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reports(self) -> list[Report]:
        return ReportReader().feed(self.body)


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


FAILURES = [(500, True, "1"), (503, True, "1"), (503, False, "full"), (500, False, None), (200, True, None), (400, True, None)]


@pytest.mark.parametrize(("status", "dead", "mark"), FAILURES)
async def test_only_what_a_dead_or_a_full_engine_says_is_safe_to_retry(
    engine: FakeEngine, app: PrivateApp, status: int, dead: bool, mark: str | None
) -> None:
    engine.status, engine.dead = status, dead
    response = await answered(app, "POST", "/v1/x")
    assert response.status == status
    assert response.headers.get("x-mygo-retry") == mark
    assert response.headers["content-type"] == "text/plain"


async def test_a_failure_without_headers_can_be_marked(engine: FakeEngine, app: PrivateApp) -> None:
    """ASGI lets an application leave them out."""
    engine.status, engine.dead, engine.headers = 500, True, None
    assert (await answered(app, "POST", "/v1/x")).headers["x-mygo-retry"] == "1"


# Prompts and reports


async def test_prompts_are_rendered_as_tokens(app: PrivateApp) -> None:
    asking = Answered(app, "POST", RENDER_PATH, sent=b"ab", given={"x-mygo-target": "/v1/x"})
    await asking.run()
    assert (asking.status, array("I", asking.body).tolist()) == (200, [5, 97, 98])


async def test_what_is_no_prompt_has_no_tokens(app: PrivateApp) -> None:
    asking = Answered(app, "POST", RENDER_PATH, sent=b"")
    await asking.run()
    assert (asking.status, asking.body) == (204, b"")


async def test_reports_come_again_and_again_until_nobody_listens(app: PrivateApp) -> None:
    listener = Answered(app, "GET", WATCH_PATH)
    watching = asyncio.create_task(listener.run())
    await eventually(lambda: len(listener.reports) >= 3)
    listener.left.set()
    await asyncio.wait_for(watching, 5)
    first = listener.reports[0].activity
    assert (first.running, first.waiting, first.kv_usage, first.draining) == (3, 2, 0.5, False)


async def test_an_admission_is_told_to_other_ingresses_at_once(
    engine: FakeEngine, app: PrivateApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_app, "PERIOD_S", 60.0)
    listeners = [Answered(app, "GET", WATCH_PATH, given={"x-mygo-ingress": name}) for name in ("one", "two")]
    watching = [asyncio.create_task(listener.run()) for listener in listeners]
    await eventually(lambda: all(listener.reports for listener in listeners))
    engine.holds = True
    request = Answered(app, "POST", "/v1/x", given={"x-mygo-ingress": "one", "x-mygo-work": "0 100 1.5 0"})
    running = asyncio.create_task(request.run())
    await eventually(lambda: listeners[1].reports[-1].activity.others_decoding + listeners[1].reports[-1].activity.others_waiting == 1)
    assert listeners[0].reports[-1].activity.others_waiting == 0
    request.left.set()
    await running
    await eventually(lambda: listeners[1].reports[-1].activity.others_decoding + listeners[1].reports[-1].activity.others_waiting == 0)
    for listener in listeners:
        listener.left.set()
    app._tell()  # or they would be seen to have left a period later
    await asyncio.gather(*watching)


async def test_a_request_with_a_strange_work_header_is_served_all_the_same(app: PrivateApp) -> None:
    request = Answered(app, "POST", "/v1/x", given={"x-mygo-work": "much"})
    await request.run()
    assert request.status == 200
