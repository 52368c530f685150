"""The layer before Ray Serve answers what the application would, and leaves to it what it cannot answer at once."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from deployments.engines.base import Message, Receive, Send
from serve_app import endpoint, front
from serve_app.door import OpenDoor
from serve_app.epochs import AHEAD_S, FRESH_S
from serve_app.exchanges import Exchanges
from serve_app.front import Front, HitPath
from serve_app.ingress import PARSERS, create_app
from serve_app.openai.requests import Generation, parse_chat
from serve_app.parts import Parts
from tests.serve_app.clients import CANARY, CHAT, METRICS
from tests.serve_app.fakes import World, eventually, make_world

PATH = "/v1/chat/completions"
LIMIT = 4096


class Through:
    """The application behind the layer; `passed` are the paths of the requests that reached it."""

    def __init__(self, world: World) -> None:
        async def scrape() -> bytes:
            return METRICS

        self.app = create_app(world.pipeline, Parts({}), scrape, exchanges=Exchanges(world.metrics))
        self.passed: list[str] = []
        self.scopes: list[Message] = []
        self.whole = Front(self._passed_on)

    async def _passed_on(self, scope: Message, receive: Receive, send: Send) -> None:
        self.passed.append(scope["path"])
        self.scopes.append(scope)
        await self.app(scope, receive, send)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    world = make_world(ingress={"max_body_bytes": LIMIT})
    monkeypatch.setattr(Front, "hit_path", HitPath(world.pipeline, Exchanges(world.metrics), PARSERS, OpenDoor()))
    yield world
    await world.keeper.stop()
    await world.uses.stop()


@pytest.fixture
def through(world: World) -> Through:
    return Through(world)


@pytest.fixture
async def http(through: Through) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(through.whole), base_url="http://test") as http:
        yield http


async def ask(http: httpx.AsyncClient, body: Any = CHAT, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await http.post(PATH, content=content, headers={"x-request-id": "r-1", **named})


async def test_a_compressed_body_is_not_read_here(http: httpx.AsyncClient, through: Through) -> None:
    assert (await ask(http)).status_code == 200  # from now on it is in memory
    assert (await ask(http, content_encoding="gzip")).json()["error"]["code"] == "unsupported_encoding"
    assert through.passed == [PATH, PATH]


async def test_an_upload_is_not_read_ahead_of_the_application(http: httpx.AsyncClient, through: Through) -> None:
    """Ray would, to see whether the client leaves; only a header of its own tells it not to."""
    name = b"x-request-disconnect-disabled"
    for method, path, wanted in (("POST", "/v1/files", [b"?1"]), ("GET", "/v1/files", []), ("POST", "/v1/vector_stores", [])):
        await http.request(method, path, headers={name.decode(): "?0"})
        assert [value for each, value in through.scopes[-1]["headers"] if each == name] == wanted


@pytest.mark.parametrize("path", ["/v1/models", "/v1/files", PATH])
async def test_clients_do_not_control_ray(http: httpx.AsyncClient, through: Through, path: str) -> None:
    """Nor do they make it fail: it reads its headers as UTF-8."""
    controls = ["x-request-disconnect-disabled", "X-Request-Timeout-Seconds", "x-session-id", "serve-multiplexed_model_id"]
    await http.get(path, headers=[(name.encode(), value) for name in controls for value in (b"?1", b"\xff\xfe")])
    assert not {name.decode() for name, _ in through.scopes[-1]["headers"]} & {name.lower() for name in controls}


@pytest.mark.parametrize("given", [b"\xff\xfe", b"a" * 3000, b"a b", b""])
async def test_an_id_that_is_none_does_not_reach_ray(http: httpx.AsyncClient, through: Through, given: bytes) -> None:
    await http.get("/v1/models", headers=[(b"x-request-id", given)])
    assert dict(through.scopes[-1]["headers"])[b"x-request-id"].isalnum()
    assert dict(through.scopes[-1]["headers"])[b"x-request-id"] != given
    await http.get("/v1/models", headers=[(b"x-request-id", b"mine-1")])
    assert dict(through.scopes[-1]["headers"])[b"x-request-id"] == b"mine-1"


FORMS: list[dict[str, Any]] = [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}]


@pytest.mark.parametrize("form", FORMS)
async def test_it_answers_as_the_application_would(http: httpx.AsyncClient, through: Through, form: dict[str, Any]) -> None:
    await ask(http)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(through.app), base_url="http://test") as plain:
        wanted = await ask(plain, {**CHAT, **form})
    through.passed.clear()
    for _ in range(2):  # once parsed, once recognised
        got = await ask(http, {**CHAT, **form})
        assert (got.status_code, got.content) == (200, wanted.content)
        took = {"openai-processing-ms": got.headers["openai-processing-ms"]}
        assert dict(got.headers) == {**wanted.headers, **took, "x-request-id": "r-1"}  # which Serve adds to the application's
    assert wanted.headers["x-mygo-cache"] == "exact"
    assert through.passed == []


async def test_it_counts_and_logs_what_it_answers(http: httpx.AsyncClient, world: World) -> None:
    await ask(http)
    await ask(http)
    await ask(http)
    assert world.metrics.requests == [(f"POST {PATH}", 200, outcome) for outcome in ("miss", "exact", "exact")]
    assert world.metrics.lookups[-2:] == [("exact", "hit")] * 2
    await world.uses.tell()
    assert list(world.cache.used.values()) == [2]


async def test_each_reply_has_an_id_of_its_own(http: httpx.AsyncClient) -> None:
    await ask(http)
    ids = [(await http.post(PATH, json=CHAT)).json()["id"] for _ in range(2)]
    ids += [(await ask(http, x_request_id="bad id")).json()["id"]]
    assert len(set(ids)) == 3
    assert all(len(each) == len("chatcmpl-") + 32 for each in ids)


async def test_what_was_read_is_not_read_again(http: httpx.AsyncClient, through: Through, world: World, monkeypatch: Any) -> None:
    parsed: list[bytes] = []

    def parse(body: bytes) -> Generation:
        parsed.append(body)
        return parse_chat(body)

    monkeypatch.setitem(PARSERS, PATH, parse)
    monkeypatch.setattr(Front, "hit_path", HitPath(world.pipeline, Exchanges(world.metrics), PARSERS, OpenDoor()))
    behind = Through(world)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(behind.whole), base_url="http://test") as client:
        await ask(client)
        await ask(client)
        await ask(client)
    assert len(parsed) == 2  # the miss, the hit; the third was recognised
    assert len(behind.passed) == 1
    assert (b"x-request-id", b"r-1") in behind.scopes[0]["headers"]


@pytest.mark.parametrize(
    ("body", "headers", "outcome"),
    [
        (CHAT, {"cache_control": "no-cache"}, "bypass"),
        (CHAT, {"cache_control": "no-store"}, "bypass"),
        (CHAT, {"x_mygo_tenant": "b"}, "miss"),
        ({**CHAT, "cache": {"mode": "refresh"}}, {}, "bypass"),
        ({**CHAT, "cache": {"mode": "off"}}, {}, "bypass"),
        ({**CHAT, "temperature": 1}, {}, "miss"),
        ({**CHAT, "return_token_ids": True}, {}, "bypass"),
    ],
)
async def test_nobody_gets_a_kept_answer_who_would_not(
    http: httpx.AsyncClient, through: Through, body: Any, headers: dict[str, str], outcome: str
) -> None:
    for _ in range(3):
        await ask(http)
    through.passed.clear()
    assert (await ask(http, body, **headers)).headers["x-mygo-cache"] == outcome
    assert through.passed == [PATH]
    assert (await ask(http)).headers["x-mygo-cache"] == "exact"


async def test_a_hit_that_speaks_of_the_cache_is_still_one(http: httpx.AsyncClient, through: Through) -> None:
    await ask(http)
    through.passed.clear()
    assert (await ask(http, cache_control="max-age=0")).headers["x-mygo-cache"] == "exact"
    assert (await ask(http, {**CHAT, "cache": {"mode": "exact", "ttl_s": 5}})).headers["x-mygo-cache"] == "exact"
    assert through.passed == []


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"{", {}),
        (b"\xff", {}),
        ({**CHAT, "model": CANARY}, {}),
        ({**CHAT, "temperature": CANARY}, {}),
        (CHAT, {"x_mygo_tenant": "a b"}),
        (CHAT, {"content_length": "x"}),
        (b"x" * (LIMIT + 1), {}),
    ],
)
async def test_what_is_wrong_is_told_by_the_application(
    http: httpx.AsyncClient, through: Through, world: World, body: Any, headers: dict[str, str]
) -> None:
    got = await ask(http, body, **headers)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(through.app), base_url="http://test") as plain:
        wanted = await ask(plain, body, **headers)
    assert (got.status_code, got.content) == (wanted.status_code, wanted.content)
    assert 400 <= got.status_code < 500
    assert through.passed == [PATH]
    assert len(world.metrics.requests) == 2


async def test_a_tenant_named_twice_is_for_the_application_to_refuse(http: httpx.AsyncClient, through: Through) -> None:
    await ask(http)
    through.passed.clear()
    headers = [("x-mygo-tenant", "default"), ("x-mygo-tenant", "b")]
    assert (await http.post(PATH, json=CHAT, headers=headers)).status_code == 400
    assert through.passed == [PATH]


async def test_other_requests_pass(http: httpx.AsyncClient, through: Through) -> None:
    await ask(http)
    through.passed.clear()
    assert (await http.get(PATH)).status_code == 405
    assert (await http.get("/healthz")).status_code == 200
    assert (await http.post("/v1/embeddings", json={})).status_code == 400
    assert through.passed == [PATH, "/healthz", "/v1/embeddings"]


async def test_without_an_application_in_this_process_it_does_nothing(http: httpx.AsyncClient, through: Through, monkeypatch: Any) -> None:
    await ask(http)
    monkeypatch.setattr(Front, "hit_path", None)
    assert (await ask(http)).headers["x-mygo-cache"] == "exact"
    assert through.passed == [PATH, PATH]


async def test_an_invalidation_ends_what_was_recognised(http: httpx.AsyncClient, through: Through, world: World) -> None:
    for _ in range(3):
        await ask(http)
    (entry,) = world.cache.entries
    world.cache.epochs[entry.namespace] = 1  # by another process
    world.cache.entries.clear()
    through.passed.clear()
    world.clock.now += FRESH_S + 0.01
    assert (await ask(http)).headers["x-mygo-cache"] == "miss"
    assert through.passed == [PATH]


async def test_the_epoch_is_asked_for_before_it_is_too_old(http: httpx.AsyncClient, through: Through, world: World) -> None:
    for _ in range(2):
        await ask(http)
    through.passed.clear()
    for _ in range(5):
        world.clock.now += AHEAD_S + 0.01
        world.steps.clear()
        assert (await ask(http)).headers["x-mygo-cache"] == "exact"
        await eventually(lambda: world.steps == ["epoch"])
        await asyncio.sleep(0)
    assert through.passed == []


async def test_a_cache_that_does_not_say_the_epoch_ends_the_hits(http: httpx.AsyncClient, through: Through, world: World) -> None:
    for _ in range(2):
        await ask(http)
    world.cache.finds.error = world.cache.searches.error = RuntimeError()
    through.passed.clear()
    world.clock.now += FRESH_S + 0.01
    assert (await ask(http)).headers["x-mygo-cache"] == "miss"
    assert through.passed == [PATH]


async def test_an_old_answer_is_renewed_by_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(cache={"ttl_s": 100.0, "soft_ttl_s": 50.0})
    monkeypatch.setattr(Front, "hit_path", HitPath(world.pipeline, Exchanges(world.metrics), PARSERS, OpenDoor()))
    through = Through(world)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(through.whole), base_url="http://test") as http:
        await ask(http)
        await world.keeper.drain()
        world.clock.now += 60
        through.passed.clear()
        assert (await ask(http)).headers["x-mygo-cache"] == "exact"
        assert through.passed == [PATH]
        await world.renewals.drain()
        await world.keeper.drain()
        assert (await ask(http)).headers["x-mygo-cache"] == "exact"
        assert through.passed == [PATH]
        world.clock.now += 101
        assert (await ask(http)).headers["x-mygo-cache"] == "miss"
    await world.keeper.stop()
    await world.uses.stop()


async def test_a_damaged_answer_is_a_miss(http: httpx.AsyncClient, through: Through, world: World) -> None:
    await ask(http)
    await world.keeper.drain()
    (entry,) = world.cache.entries
    world.lru.put(replace(entry, answer=entry.answer[:-3]))
    world.cache.entries.clear()
    assert (await ask(http)).headers["x-mygo-cache"] == "miss"
    assert ("exact", "damaged") in world.metrics.lookups


async def test_the_exact_tier_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(cache={"exact": {"enabled": False}, "semantic": {"enabled": False}})
    monkeypatch.setattr(Front, "hit_path", HitPath(world.pipeline, Exchanges(world.metrics), PARSERS, OpenDoor()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(Through(world).whole), base_url="http://test") as http:
        assert [(await ask(http)).headers["x-mygo-cache"] for _ in range(3)] == ["miss"] * 3
    await world.keeper.stop()


async def test_as_many_bodies_are_remembered_as_may_be(http: httpx.AsyncClient, through: Through, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "SEEN", 2)
    bodies = [{**CHAT, "user": str(number)} for number in range(4)]  # one key, many bodies
    for body in bodies:
        await ask(http, body)
    assert Front.hit_path is not None
    assert len(Front.hit_path._seen) == 2
    assert [(await ask(http, body)).headers["x-mygo-cache"] for body in bodies] == ["exact"] * 4


# Bodies that come in pieces


def pieces_of(body: bytes) -> Iterator[Message]:
    for place in range(len(body)):
        yield {"type": "http.request", "body": body[place : place + 1], "more_body": place + 1 < len(body)}


async def exchange(through: Through, messages: Iterator[Message]) -> list[Message]:
    got: list[Message] = []

    async def receive() -> Message:
        message = next(messages, None)
        if message is None:
            await asyncio.Event().wait()
        assert message is not None
        return message

    async def send(message: Message) -> None:
        got.append(message)

    scope = {"type": "http", "method": "POST", "path": PATH, "headers": [], "query_string": b""}
    await through.whole(scope, receive, send)
    return got


async def test_a_body_may_come_byte_by_byte(http: httpx.AsyncClient, through: Through) -> None:
    body = json.dumps(CHAT).encode()
    for passes in (1, 1, 1):  # miss, then hits
        got = await exchange(through, pieces_of(body))
        assert (got[0]["status"], len(through.passed)) == (200, passes)


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_counted_once(through: Through, world: World) -> None:
    messages: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    assert await exchange(through, iter(messages)) == []
    assert world.metrics.requests == [(f"POST {PATH}", endpoint.CLIENT_CLOSED_REQUEST, "")]


async def test_a_body_that_never_comes_is_given_up_after_one_time_limit(
    through: Through, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "BODY_TIMEOUT_S", 0.05)
    async with asyncio.timeout(5):
        got = await exchange(through, iter([{"type": "http.request", "body": b"{", "more_body": True}]))
    assert got[0]["status"] == 408
    assert world.metrics.requests == [(f"POST {PATH}", 408, "")]


async def test_a_body_whose_first_byte_never_comes_is_given_up_too(through: Through, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "BODY_TIMEOUT_S", 0.05)
    async with asyncio.timeout(5):
        got = await exchange(through, iter([]))
    assert got[0]["status"] == 408
    assert world.metrics.requests == [(f"POST {PATH}", 408, "")]


async def test_of_bodies_in_pieces_no_more_are_read_at_once_than_requests_are_admitted(through: Through, world: World) -> None:
    assert Front.hit_path is not None
    Front.hit_path._max_reading = 0
    got = await exchange(through, pieces_of(json.dumps(CHAT).encode()))
    assert (got[0]["status"], through.passed) == (200, [PATH])  # the application has read it
    assert Front.hit_path._reading == 0


async def test_a_long_body_without_a_length_is_refused_as_soon_as_it_is_too_long(through: Through) -> None:
    endless = ({"type": "http.request", "body": b"x" * 1000, "more_body": True} for _ in range(100))
    got = await exchange(through, endless)
    assert got[0]["status"] == 413
    assert len(list(endless)) > 90
