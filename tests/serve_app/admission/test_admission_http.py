"""Limits and turns as clients meet them, over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deployments.errors import QueueFullError
from serve_app.door import OpenDoor
from serve_app.exchanges import Exchanges
from serve_app.front import Front, HitPath
from serve_app.ingress import PARSERS, create_app
from serve_app.parts import Parts
from tests.serve_app.clients import CHAT, ENCODER, METRICS, error_of
from tests.serve_app.fakes import MODEL, TEXT, FakeAnswer, World, eventually, make_world, new_text, whole

CHATS = "/v1/chat/completions"
OFF = {"cache": {"mode": "off"}}


@pytest.fixture
def limits() -> dict[str, int]:
    return {}


@pytest.fixture
async def world(limits: dict[str, int]) -> AsyncIterator[World]:
    world = make_world(limits=limits)
    yield world
    await world.keeper.stop()
    await world.uses.stop()


@pytest.fixture
async def http(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    async def scrape() -> bytes:
        return METRICS

    exchanges = Exchanges(world.metrics)
    monkeypatch.setattr(Front, "hit_path", HitPath(world.pipeline, exchanges, PARSERS, OpenDoor()))
    app = Front(create_app(world.pipeline, Parts({}), scrape, exchanges=exchanges))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        yield http


def body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": new_text()}], **OFF, **fields}


async def ask(http: httpx.AsyncClient, tenant: str = "ada", **fields: Any) -> httpx.Response:
    return await http.post(CHATS, json=body(**fields), headers={"x-mygo-tenant": tenant})


@pytest.mark.parametrize("limits", [{"requests_per_minute": 3}])
@pytest.mark.parametrize("stream", [False, True])
async def test_requests_a_minute_of_each_tenant(http: httpx.AsyncClient, world: World, stream: bool) -> None:
    left = [(await ask(http, stream=stream)).headers["x-ratelimit-remaining-requests"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    refused = await ask(http, stream=stream)
    error = error_of(refused)
    assert (refused.status_code, error["type"], error["code"]) == (429, "requests", "rate_limit_exceeded")
    assert (refused.headers["retry-after"], refused.headers["x-ratelimit-limit-requests"]) == ("20", "3")
    assert (await ask(http, "bob")).status_code == 200
    world.clock.now += 20
    assert (await ask(http)).status_code == 200


@pytest.mark.parametrize("limits", [{"requests_per_minute": 3}])
async def test_kept_answers_count_as_requests(http: httpx.AsyncClient, world: World) -> None:
    answers = [await http.post(CHATS, json=CHAT) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers.get("x-mygo-cache") for answer in answers[:3]] == ["miss", "exact", "exact"]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers[:3]] == ["2", "1", "0"]


@pytest.mark.parametrize("limits", [{"tokens_per_minute": 1000}])
async def test_tokens_are_those_that_engines_have_counted(http: httpx.AsyncClient, world: World) -> None:
    assert (await ask(http, max_tokens=100)).status_code == 200
    usage = json.loads(whole(TEXT))["usage"]
    left = int((await ask(http, max_tokens=100)).headers["x-ratelimit-remaining-tokens"])
    expected = 1000 - usage["prompt_tokens"] - usage["completion_tokens"] - 100 - len(body()["messages"][0]["content"]) / 4
    assert left == pytest.approx(expected, abs=3)
    for _ in range(3):
        await http.post(CHATS, json=CHAT)  # of these two cost nothing
    after = int((await ask(http, max_tokens=1)).headers["x-ratelimit-remaining-tokens"])
    assert after >= 1000 - 4 * (usage["prompt_tokens"] + usage["completion_tokens"]) - 20


@pytest.mark.parametrize("limits", [{"tokens_per_minute": 50}])
async def test_of_too_many_tokens_it_is_said_when_to_come_again(http: httpx.AsyncClient, world: World) -> None:
    world.replicas.script.extend([FakeAnswer([whole(TEXT).replace(b'"completion_tokens":', b'"completion_tokens":9')])] * 1)
    assert (await ask(http, max_tokens=10)).status_code == 200
    refused = await ask(http, max_tokens=10)
    assert (refused.status_code, error_of(refused)["type"]) == (429, "tokens")
    assert int(refused.headers["retry-after"]) > 0


@pytest.mark.parametrize("limits", [{"concurrency": 1}])
@pytest.mark.parametrize("stream", [False, True])
async def test_requests_at_once_end_with_their_answers(http: httpx.AsyncClient, world: World, stream: bool) -> None:
    slow = FakeAnswer([whole(TEXT)])
    hold = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        await hold.wait()
        yield whole(TEXT)

    slow.chunks = chunks  # type: ignore[method-assign]
    world.replicas.script.append(slow)
    first = asyncio.create_task(ask(http, stream=stream))
    await eventually(lambda: len(world.replicas.calls) == 1)
    assert (await ask(http)).status_code == 429
    assert (await ask(http, "bob")).status_code == 200
    hold.set()
    assert (await first).status_code == 200
    assert (await ask(http)).status_code == 200


@pytest.mark.parametrize("limits", [{"concurrency": 1}])
async def test_a_request_that_failed_or_was_given_up_holds_no_place(http: httpx.AsyncClient, world: World) -> None:
    world.replicas.script.append(ValueError("a defect"))
    assert (await ask(http)).status_code == 500
    assert (await http.post(CHATS, json={**body(), "model": "none"}, headers={"x-mygo-tenant": "ada"})).status_code == 404
    assert (await http.post(CHATS, content=b"{", headers={"x-mygo-tenant": "ada"})).status_code == 400
    hold = asyncio.Event()
    slow = FakeAnswer([])

    async def chunks() -> AsyncIterator[bytes]:
        await hold.wait()
        yield b""

    slow.chunks = chunks  # type: ignore[method-assign]
    world.replicas.script.append(slow)
    gone = asyncio.create_task(ask(http))
    await eventually(lambda: len(world.replicas.calls) == 2)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert (await ask(http)).status_code == 200


@pytest.mark.parametrize("limits", [{"requests_per_minute": 2, "tokens_per_minute": 1000}])
async def test_embeddings_count_too(http: httpx.AsyncClient) -> None:
    asked = {"model": ENCODER, "input": ["one text", "and another"]}
    answers = [await http.post("/v1/embeddings", json=asked) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[1].headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(("is_own", "status", "code"), [(True, 429, "rate_limit_exceeded"), (False, 503, "overloaded")])
async def test_a_queue_that_is_full_says_when_to_come_again(
    http: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch, is_own: bool, status: int, code: str
) -> None:
    def full(*_: object) -> None:
        raise QueueFullError(12.3, is_own=is_own)

    monkeypatch.setattr(world.pipeline.routing.turnstile, "check", full)
    refused = await ask(http)
    assert (refused.status_code, refused.headers["retry-after"], error_of(refused)["code"]) == (status, "13", code)
    assert world.replicas.calls == []


async def test_a_refusal_under_overload_costs_no_search(http: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise QueueFullError(1.0, is_own=False)

    kept = await http.post(CHATS, json=CHAT)
    await world.keeper.drain()
    monkeypatch.setattr(world.pipeline.routing.turnstile, "check", full)
    world.steps.clear()
    assert (await http.post(CHATS, json={**body(), "cache": {"mode": "on"}})).status_code == 503
    assert "search" not in world.steps
    assert (await http.post(CHATS, json=CHAT)).json()["choices"] == kept.json()["choices"]  # a kept answer needs no engine


@pytest.mark.parametrize("given", ["", "soon", "-1", "1e3", "nan", "٣"])
async def test_a_wait_that_is_no_number_is_refused(http: httpx.AsyncClient, given: str) -> None:
    refused = await http.post(CHATS, json=body(), headers=[(b"x-mygo-max-wait", given.encode())])
    assert (refused.status_code, error_of(refused)["param"]) == (400, "x-mygo-max-wait")


@pytest.mark.parametrize("priority", [1001, -1001, 1.5, "high"])
async def test_a_priority_that_is_none_is_refused(http: httpx.AsyncClient, priority: object) -> None:
    refused = await ask(http, priority=priority)
    assert (refused.status_code, error_of(refused)["param"]) == (400, "priority")


async def test_a_request_says_how_it_is_to_wait_and_the_engine_is_not_told(http: httpx.AsyncClient, world: World) -> None:
    flows, rank = [], world.pipeline.routing.rank

    async def seen(*args: Any, **fields: Any) -> Any:
        flows.append(args[5])
        return await rank(*args, **fields)

    world.pipeline.routing.rank = seen  # type: ignore[method-assign]
    answer = await http.post(CHATS, json=body(priority=-5, max_tokens=7, n=2), headers={"x-mygo-max-wait": "2.5"})
    assert answer.status_code == 200
    (flow,) = flows
    assert (flow.priority, flow.max_wait_s, flow.output_tokens, flow.weight) == (-5, 2.5, 14, 1.0)
    assert "priority" not in world.replicas.bodies[0]
