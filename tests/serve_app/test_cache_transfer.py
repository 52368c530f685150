"""Export and import of a tenant's own cache, on the real cache."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from cache.cascade import Query
from cache.entry import Entry
from cache.errors import EmbedderError, StoreError
from cache.policy import Policy
from cache.stores.base import Filter
from cache.vectors.memory import MemoryIndex
from serve_app import cache_transfer
from serve_app.ingress import create_app
from serve_app.modelcache.cache_backend import SharedCacheBackend
from serve_app.openai.answers import from_json
from serve_app.parts import Parts
from serve_app.tenants import Namespaces
from tests.cache.entries import make_entry
from tests.cache.worlds import CacheWorld
from tests.serve_app.asking import text_of
from tests.serve_app.fakes import CANARY, MODEL, SECRET, TEXT, FakeAnswer, World, make_world, whole
from tests.serve_app.formats import message, response

NAMESPACES = Namespaces(SECRET, "production")
ADA = NAMESPACES.of("ada")
BOB = {"x-mygo-tenant": "bob"}
QUESTION, ANSWER = "What is a cache?", "A place for answers. 🙂"
LINE: dict[str, Any] = {"text": QUESTION, "answer": ANSWER, "model": MODEL}
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world(cache={"max_answer_bytes": 1000, "ttl_s": 1000, "soft_ttl_s": 100})
    yield world
    await world.keeper.stop()


@pytest.fixture
def kept(tmp_path: Path, world: World) -> CacheWorld:
    kept = CacheWorld(tmp_path, MemoryIndex(8))
    kept.clock.now = world.clock.now
    world.cache.real = kept.cache
    return kept


@pytest.fixture
async def http(world: World, kept: CacheWorld) -> AsyncIterator[httpx.AsyncClient]:
    async def scrape() -> bytes:
        return b""

    transport = httpx.ASGITransport(create_app(world.pipeline, Parts({}), scrape))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers={"x-mygo-tenant": "ada"}) as client:
        yield client


def lines(*values: Any) -> bytes:
    return b"".join(each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in values)


async def send(http: httpx.AsyncClient, *values: Any, **headers: str) -> Any:
    response = await http.post("/v1/cache/import", content=lines(*values), headers={**http.headers, **headers})
    assert response.status_code == 200, response.text
    assert CANARY not in response.text
    return response.json()


async def export(http: httpx.AsyncClient, **headers: str) -> list[Any]:
    response = await http.get("/v1/cache/export", headers={**http.headers, **headers})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in response.text.splitlines()]


async def ask(http: httpx.AsyncClient, world: World, **changes: Any) -> tuple[str, str]:
    response = await http.post("/v1/chat/completions", json={**CHAT, **changes})
    assert response.status_code == 200
    await world.keeper.drain()
    return response.headers["x-mygo-cache"], text_of(response.content)


# What is imported answers


@pytest.mark.parametrize("stream", [False, True])
async def test_a_line_answers_its_question(http: httpx.AsyncClient, world: World, stream: bool) -> None:
    assert await send(http, LINE) == {"object": "cache.import", "imported": 1, "errors": []}
    assert await ask(http, world, stream=stream) == ("exact", ANSWER)
    assert await ask(http, world, stream=stream, messages=[{"role": "user", "content": "please, what's a cache"}]) == ("semantic", ANSWER)
    assert (await ask(http, world, stream=stream, temperature=0.5))[0] == "miss"
    assert world.replicas.bodies[-1]["temperature"] == 0.5


async def test_a_line_is_kept_as_the_tiers_keep_an_answer(http: httpx.AsyncClient, world: World, kept: CacheWorld) -> None:
    await ask(http, world, cache={"tags": ["t"]})
    (asked,) = kept.cache.page(ADA, Filter(), "", 9)
    one = kept.cache.get(ADA, asked.id)
    kept.cache.apply()
    vector = kept.store.scan("", 9, kept.clock.now, "e")
    await send(http, {**LINE, "answer": from_json(whole(TEXT)), "tags": ["t"]})
    kept.cache.apply()
    (sent,) = kept.cache.page(ADA, Filter(), "", 9)
    other = kept.cache.get(ADA, sent.id)
    assert one is not None
    assert other is not None
    assert replace(other, id=one.id, epoch=one.epoch) == one
    assert (kept.store.scan("", 9, kept.clock.now, "e")[0].vector == vector[0].vector).all()


async def test_a_line_is_found_by_meaning(http: httpx.AsyncClient, world: World, kept: CacheWorld) -> None:
    await send(http, LINE)
    (info,) = kept.cache.page(ADA, Filter(), "", 9)
    entry = kept.cache.get(ADA, info.id)
    assert entry is not None
    (embedded,) = await world.embedding.embed([QUESTION])
    found = kept.cache.search(Query(ADA, entry.fingerprint, "Explain what a cache is", embedded.vector), Policy(mode="static"))
    assert found.entry is not None
    assert found.entry.id == info.id


async def test_a_line_replaces_what_was_kept_before(http: httpx.AsyncClient, world: World) -> None:
    assert await ask(http, world) == ("miss", TEXT)
    assert await ask(http, world) == ("exact", TEXT)
    assert (await send(http, LINE, {**LINE, "answer": "Another one."}))["imported"] == 2
    world.clock.now += 1  # until then this process may believe that nothing has changed
    assert await ask(http, world) == ("exact", "Another one.")
    assert [each["answer"]["choices"][0]["message"]["content"] for each in await export(http)] == ["Another one."]


async def test_a_lines_life_and_tags(http: httpx.AsyncClient, world: World, kept: CacheWorld) -> None:
    await send(http, {**LINE, "ttl_s": 10, "tags": ["t", "t", "u"]}, {**LINE, "text": "Why?", "ttl_s": 10**9})
    entries = {each.text: each for each in kept.cache.page(ADA, Filter(), "", 9)}
    assert entries[QUESTION].tags == ("t", "u")
    assert [entries[text].expires_at - world.clock.now for text in (QUESTION, "Why?")] == [10, 1000]
    assert entries[QUESTION].tokens > 1, "what saves nothing would be evicted first"


async def test_a_question_about_the_moment_is_answered_in_these_words_only(http: httpx.AsyncClient, kept: CacheWorld) -> None:
    await send(http, {**LINE, "text": "What is the weather today?"})
    (info,) = kept.cache.page(ADA, Filter(), "", 9)
    assert info.text is None


async def test_what_was_invalidated_during_an_import_is_not_served(
    http: httpx.AsyncClient, kept: CacheWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = kept.cache.insert_all

    def late(entries: list[Entry]) -> None:
        kept.cache.invalidate(ADA, "all")
        keep(entries)

    monkeypatch.setattr(kept.cache, "insert_all", late)
    assert (await send(http, LINE))["imported"] == 1
    assert await export(http) == []


# Export, and what comes back from it


async def fill(http: httpx.AsyncClient, world: World, kept: CacheWorld) -> None:
    """One entry of each kind."""
    await ask(http, world, cache={"tags": ["t"]})
    await ask(http, world, messages=[{"role": "system", "content": "Answer in French."}, *CHAT["messages"]])
    await ask(http, world, messages=[{"role": "user", "content": "What is the weather today?"}])
    await http.post("/v1/completions", json={"model": MODEL, "prompt": "A cache is"})
    await world.keeper.drain()
    backend = SharedCacheBackend(world.cache, world.embedding, NAMESPACES, world.config.cache, world.clock)
    await backend.insert("ada", "m", [([{"role": "user", "content": "Why?"}], "Because.")])


async def test_an_export_brings_everything_back(http: httpx.AsyncClient, world: World, kept: CacheWorld) -> None:
    await fill(http, world, kept)
    exported = await export(http)
    assert [each["id"] for each in exported] == sorted(each["id"] for each in exported)
    assert sorted((each["model"], each["text"] or "") for each in exported) == [
        (MODEL, ""),
        (MODEL, ""),
        (MODEL, QUESTION),
        (MODEL, QUESTION),
        ("modelcache-model:m", ""),
        ("modelcache:m", "Why?"),
    ]
    kept.cache.invalidate(ADA, "all")
    world.clock.now += 1
    kept.clock.now += 1
    assert await send(http, *exported) == {"object": "cache.import", "imported": 6, "errors": []}
    calls = len(world.replicas.calls)
    french = [{"role": "system", "content": "Answer in French."}, *CHAT["messages"]]
    assert [(await ask(http, world, messages=messages))[0] for messages in (CHAT["messages"], french)] == ["exact"] * 2
    assert (await http.post("/v1/completions", json={"model": MODEL, "prompt": "A cache is"})).headers["x-mygo-cache"] == "exact"
    assert len(world.replicas.calls) == calls
    backend = SharedCacheBackend(world.cache, world.embedding, NAMESPACES, world.config.cache, world.clock)
    hit = await backend.query("ada", "m", [{"role": "user", "content": "please, why"}])
    assert hit is not None
    assert (hit.answer, hit.query) == ("Because.", "user: Why?")
    again = await export(http)
    of_place = ("key", "fingerprint", "answer", "text", "tags", "tokens", "model")
    assert sorted([each[name] for name in of_place] for each in again) == sorted([each[name] for name in of_place] for each in exported)
    assert max(each["expires_at"] for each in again) == world.clock.now - 1 + 1000, "no older than its request would have been kept for"


async def test_responses_and_messages_come_back_to_their_own_routes(http: httpx.AsyncClient, world: World, kept: CacheWorld) -> None:
    asked = {
        "/v1/responses": {"model": MODEL, "input": QUESTION},
        "/v1/messages": {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": QUESTION}]},
    }
    world.replicas.script += [FakeAnswer([response(TEXT)]), FakeAnswer([message(TEXT)])]
    for path, body in asked.items():
        assert (await http.post(path, json=body)).headers["x-mygo-cache"] == "miss"
    await world.keeper.drain()
    exported = await export(http)
    kept.cache.invalidate(ADA, "all")
    world.clock.now += 1
    kept.clock.now += 1
    bad = {**exported[0], "answer": {**exported[0]["answer"], "usage": None}}
    report = await send(http, *exported, bad)
    assert (report["imported"], [error["line"] for error in report["errors"]]) == (2, [3])
    for path, body in asked.items():
        answer = await http.post(path, json=body)
        assert (answer.headers["x-mygo-cache"], TEXT in answer.text) == ("exact", True)


async def test_an_answer_to_another_prompt_does_not_become_one_to_its_bare_question(http: httpx.AsyncClient, world: World) -> None:
    await ask(http, world, messages=[{"role": "system", "content": "Answer in French."}, *CHAT["messages"]])
    (exported,) = await export(http)
    await http.post("/v1/cache/invalidate", json={"all": True})
    await send(http, exported)
    world.clock.now += 1
    assert (await ask(http, world))[0] == "miss"


async def test_import_does_not_make_answers_younger(http: httpx.AsyncClient, world: World, kept: CacheWorld) -> None:
    await send(http, LINE)
    (exported,) = await export(http)
    world.clock.now += 400
    kept.clock.now += 400
    await send(http, exported)
    (info,) = kept.cache.page(ADA, Filter(), "", 9)
    entry = kept.cache.get(ADA, info.id)
    assert entry is not None
    assert (entry.expires_at - world.clock.now, (entry.stale_at or 0) - world.clock.now) == (600, -300)
    world.clock.now += 600
    refused = await send(http, exported, {**exported, "expires_at": 1e300, "created_at": 1})
    assert refused["errors"] == [{"line": number, "message": "expires_at: the answer is too old."} for number in (1, 2)]


async def test_an_export_is_read_in_parts(http: httpx.AsyncClient, kept: CacheWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_transfer, "PAGE", 3)
    monkeypatch.setattr(cache_transfer, "PORTION_BYTES", 250)
    await send(http, *({**LINE, "text": f"Why {number}?"} for number in range(7)))
    asked: list[int] = []
    get_all = kept.cache.get_all

    def counted(namespace: str, ids: list[str]) -> Any:
        asked.append(len(ids))
        return get_all(namespace, ids)

    monkeypatch.setattr(kept.cache, "get_all", counted)
    exported = await export(http)
    assert sorted(each["text"] for each in exported) == [f"Why {number}?" for number in range(7)]
    assert (sum(asked), max(asked)) == (7, 1)


async def test_a_damaged_answer_is_left_out(http: httpx.AsyncClient, kept: CacheWorld) -> None:
    kept.cache.insert(make_entry(namespace=ADA, answer=b"{", expires_at=kept.clock.now + 1))
    assert await export(http) == []


async def test_a_store_that_is_down_is_said_before_the_export_begins(
    http: httpx.AsyncClient, kept: CacheWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*args: Any) -> None:
        raise StoreError(CANARY)

    monkeypatch.setattr(kept.cache, "page", down)
    response = await http.get("/v1/cache/export")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert CANARY not in response.text


# Tenants


async def test_tenants_export_and_import_their_own_only(http: httpx.AsyncClient, world: World, kept: CacheWorld) -> None:
    await send(http, LINE)
    assert await export(http, **BOB) == []
    exported = await export(http)
    await send(http, *exported, **BOB)
    await send(http, {**LINE, "answer": "Bob's."}, **BOB)
    assert await ask(http, world) == ("exact", ANSWER)
    assert (await http.post("/v1/chat/completions", json=CHAT, headers=BOB)).json()["choices"][0]["message"]["content"] == "Bob's."
    assert [each["id"] for each in await export(http)] == [each["id"] for each in exported]


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/cache/export"), ("POST", "/v1/cache/import")])
async def test_a_tenants_name_that_is_none(http: httpx.AsyncClient, method: str, path: str) -> None:
    response = await http.request(method, path, content=lines(LINE), headers={"x-mygo-tenant": f"{CANARY} or 1=1"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x-mygo-tenant")
    assert CANARY not in response.text


# Bad lines

EXPORTED = {**LINE, "key": "0" * 64, "fingerprint": "1" * 64}
COMPLETION = {"object": "text_completion", "choices": [{"index": 0, "text": "x", "finish_reason": "stop"}], "usage": {}}
NO_JSON = "The line is not a JSON object in UTF-8, or it is nested too deep."
BAD: list[tuple[Any, str]] = [
    (b"{" + CANARY.encode() + b"\n", NO_JSON),
    (b"[" * 5000 + b"\n", NO_JSON),
    (b'{"text": "\xff\xfe", "answer": "x", "model": "m"}\n', NO_JSON),
    (b'{"text": "a\x00b", "answer": "x", "model": "m"}\n', NO_JSON),
    (rb'{"text": "\ud800", "answer": "x", "model": "m"}' + b"\n", NO_JSON),
    ([CANARY], NO_JSON),
    (7, NO_JSON),
    ({}, "model is required."),
    ({"text": CANARY, "model": MODEL}, "answer is required."),
    ({**LINE, f"{CANARY} ": 1}, "The object has a field that is not known; allowed: "),
    ({**LINE, "anwser": 1}, "anwser is not known; allowed: "),
    ({**LINE, "text": None}, "text must not be missing or blank."),
    ({**LINE, "text": " \n"}, "text must not be missing or blank."),
    ({**LINE, "text": 7}, "text: Expected `str"),
    ({**LINE, "text": ""}, "text must have at least 1 character."),
    ({**LINE, "answer": ""}, "answer must have at least 1 character."),
    ({**LINE, "answer": " "}, "answer must not be blank."),
    ({**LINE, "answer": "x" * 1000}, "answer: longer than 1000 bytes."),
    ({**LINE, "answer": [CANARY]}, "answer: Expected `str | object"),
    ({**LINE, "answer": {CANARY: CANARY}}, "answer.object is required."),
    ({**LINE, "answer": {**COMPLETION, "choices": []}}, "answer.choices must have at least 1 item."),
    ({**LINE, "answer": {**COMPLETION, "choices": [{"index": 0, "finish_reason": "stop"}]}}, "answer.choices: each needs"),
    ({**LINE, "answer": {**COMPLETION, "object": CANARY}}, "answer.object is not an allowed value"),
    ({**LINE, "answer": COMPLETION}, "answer.object: must be chat.completion."),
    ({**LINE, "model": CANARY}, "model: this one does not answer here."),
    ({**LINE, "model": "x" * 256}, "model must have at most 255 characters."),
    ({**LINE, "tags": [""]}, "tags[0] must have at least 1 character."),
    ({**LINE, "tags": ["x" * 65]}, "tags[0] must have at most 64 characters."),
    ({**LINE, "tags": ["x"] * 17}, "tags must have at most 16 items."),
    ({**LINE, "tags": CANARY}, "tags: Expected `array"),
    ({**LINE, "ttl_s": 0}, "ttl_s must be more than 0."),
    ({**LINE, "ttl_s": CANARY}, "ttl_s: Expected `float"),
    ({**EXPORTED, "key": CANARY}, "key: Expected `str` matching regex"),
    ({**EXPORTED, "key": "0" * 64 + "\n"}, "key: Expected `str` matching regex"),
    ({**EXPORTED, "fingerprint": 1}, "fingerprint: Expected `str"),
    ({**EXPORTED, "tokens": 2**31}, "tokens must be at most 2147483647."),
    ({**EXPORTED, "tokens": -1}, "tokens must be at least 0."),
    ({**EXPORTED, "expires_at": 1}, "expires_at: the answer is too old."),
    ({**EXPORTED, "created_at": CANARY}, "created_at: Expected `float"),
    ({**EXPORTED, "answer": {}}, "answer.object is required."),
    ({**EXPORTED, "answer": {"answer": "x", "query": "y"}}, "answer.object is required."),
    ({**EXPORTED, "model": "modelcache:m", "answer": {"answer": "x"}}, "answer.query is required."),
    ({**EXPORTED, "model": "modelcache:m", "answer": {}}, "answer.answer is required."),
    ({**EXPORTED, "model": "modelcache-model:m", "answer": {f"{CANARY} ": 1}}, "answer: The object has a field that is not known"),
    ({**LINE, "model": "modelcache:m", "answer": {"answer": "x", "query": "y"}}, "answer.object is required."),
]


@pytest.mark.parametrize(("bad", "message"), BAD, ids=lambda value: str(value)[:60])
async def test_a_bad_line_is_named_and_the_others_kept(http: httpx.AsyncClient, bad: Any, message: str) -> None:
    report = await send(http, LINE, b"\n \r\n", bad, {**LINE, "text": "Why?"})
    assert (report["imported"], [error["line"] for error in report["errors"]]) == (2, [4])
    assert report["errors"][0]["message"].startswith(message), report["errors"]


async def test_text_with_every_character_is_kept(http: httpx.AsyncClient, world: World) -> None:
    text = "Why\u0000 \u0085\u2028\u2029 \u7f13\u5b58 \U0001f642?"
    assert (await send(http, {**LINE, "text": text}))["imported"] == 1
    assert (await ask(http, world, messages=[{"role": "user", "content": text}]))[0] == "exact"
    assert [each["text"] for each in await export(http)] == [text]


@pytest.mark.parametrize("body", [b"", b"\n\n \r\n"])
async def test_a_body_without_lines(http: httpx.AsyncClient, body: bytes) -> None:
    response = await http.post("/v1/cache/import", content=body)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_too_many_lines_are_refused_at_once(http: httpx.AsyncClient, world: World) -> None:
    response = await http.post("/v1/cache/import", content=b"\n" * (cache_transfer.MAX_LINES + 1))
    assert (response.status_code, response.json()["error"]["message"]) == (400, "The body has more than 10000 lines.")
    assert world.steps == []


async def test_a_line_that_the_store_refuses_costs_only_itself(
    http: httpx.AsyncClient, kept: CacheWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = kept.cache.insert_all

    def refuses(entries: list[Entry]) -> None:
        if any(entry.text == "Why?" for entry in entries):
            raise StoreError(CANARY)
        keep(entries)

    monkeypatch.setattr(kept.cache, "insert_all", refuses)
    report = await send(http, {**LINE, "text": "Why?"}, b"x\n", LINE)
    assert (report["imported"], [error["line"] for error in report["errors"]]) == (1, [1, 2])


@pytest.mark.parametrize("part", ["cache", "encoder"])
async def test_without_a_part_nothing_is_imported(http: httpx.AsyncClient, world: World, part: str) -> None:
    if part == "cache":
        world.cache.finds.error = StoreError(CANARY)
    else:
        world.embedding.fault.error = EmbedderError(CANARY)
    response = await http.post("/v1/cache/import", content=lines(LINE))
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert CANARY not in response.text


async def test_a_line_from_an_engine_keeps_all_of_its_answer(http: httpx.AsyncClient, world: World) -> None:
    answer = {"id": "engine-1", "created": 7, **msgspec.json.decode(whole(TEXT)), "system_fingerprint": "f"}
    await send(http, {**LINE, "answer": answer})
    response = (await http.post("/v1/chat/completions", json=CHAT)).json()
    assert (response["system_fingerprint"], response["choices"], response["usage"]) == ("f", answer["choices"], answer["usage"])
    assert response["id"] != "engine-1"
