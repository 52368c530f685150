"""A tenant's own cache over HTTP."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cache.cascade import Decision, Reason
from cache.entry import Entry
from cache.semantic import AUDITED_S
from cache.stores.base import Candidate
from serve_app.ingress import create_app
from serve_app.parts import Parts
from serve_app.tenants import Namespaces
from tests.cache.worlds import STATIC, CacheWorld
from tests.serve_app.fakes import CANARY, MODEL, SECRET, World

NO_AUDITS = {"audited": 0, "wrong": 0, "share_low": 0.0, "share_high": 1.0}
ADA = Namespaces(SECRET, "production").of("ada")
BOB = {"x-mygo-tenant": "bob"}


@pytest.fixture
def kept(tmp_path: Path) -> CacheWorld:
    return CacheWorld(tmp_path)


@pytest.fixture
async def http(world: World, kept: CacheWorld) -> AsyncIterator[httpx.AsyncClient]:
    world.cache.real = kept.cache

    async def scrape() -> bytes:
        return b""

    transport = httpx.ASGITransport(create_app(world.pipeline, Parts({}), scrape))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers={"x-mygo-tenant": "ada"}) as client:
        yield client


def keep(kept: CacheWorld, **changes: Any) -> Entry:
    return kept.keep(**{"namespace": ADA, "answer": b'{"choices":[]}', **changes})


async def test_entries_are_listed_page_by_page_and_filtered(http: httpx.AsyncClient, kept: CacheWorld) -> None:
    entries = [keep(kept, tags=("t",), tokens=5), keep(kept, model="other"), keep(kept)]
    first = (await http.get("/v1/cache/entries?limit=2")).json()
    assert [each["id"] for each in first["data"]] == [each.id for each in entries[:2]]
    assert (first["has_more"], first["last_id"]) == (True, entries[1].id)
    rest = (await http.get(f"/v1/cache/entries?after={first['last_id']}")).json()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == ([entries[2].id], False)
    (tagged,) = (await http.get("/v1/cache/entries?tag=t")).json()["data"]
    assert (tagged["id"], tagged["tags"], tagged["tokens"], tagged["text"]) == (entries[0].id, ["t"], 5, "What is a cache?")
    (other,) = (await http.get("/v1/cache/entries?model=other")).json()["data"]
    assert other["id"] == entries[1].id


async def test_an_answer_that_was_damaged_in_the_store_is_shown_as_none(http: httpx.AsyncClient, kept: CacheWorld) -> None:
    entry = keep(kept, answer=b'{"choices": [')
    assert (await http.get(f"/v1/cache/entries/{entry.id}")).json()["answer"] is None


async def test_an_entry_is_shown_with_its_answer_and_deleted(http: httpx.AsyncClient, kept: CacheWorld) -> None:
    entry = keep(kept)
    assert (await http.get(f"/v1/cache/entries/{entry.id}")).json()["answer"] == {"choices": []}
    assert (await http.delete(f"/v1/cache/entries/{entry.id}")).json()["deleted"]
    for call in (http.get, http.delete):
        gone = await call(f"/v1/cache/entries/{entry.id}")
        assert (gone.status_code, gone.json()["error"]["param"]) == (404, "entry_id")


@pytest.mark.parametrize(("body", "left"), [({"all": True}, 0), ({"model": "other"}, 2), ({"tag": "t"}, 2), ({"tag": "x"}, 3)])
async def test_a_scope_is_invalidated(http: httpx.AsyncClient, kept: CacheWorld, body: dict[str, Any], left: int) -> None:
    for changes in ({"tags": ("t",)}, {"model": "other"}, {}):
        keep(kept, **changes)
    assert (await http.post("/v1/cache/invalidate", json=body)).json() == {"object": "cache.invalidation", "epoch": 1}
    assert (await http.get("/v1/cache/stats")).json()["entries"] == left


async def test_feedback_ends_a_wrong_hit_at_once(http: httpx.AsyncClient, kept: CacheWorld) -> None:
    entry = keep(kept)
    said = {"entry_id": entry.id, "question": "Explain what a cache is", "correct": False}
    query = kept.query(namespace=ADA)
    assert kept.cache.search(query, STATIC).entry
    assert (await http.post("/v1/cache/feedback", json=said)).json()["recorded"]
    for text in ("Explain what a cache is", "explain what a cache is."):
        assert not kept.cache.search(replace(query, text=text), STATIC).entry
    assert kept.cache.find(ADA, "0", "f1", "What's a cache").reworded is not None
    assert not (await http.post("/v1/cache/feedback", json={**said, "correct": True})).json()["recorded"]
    await http.post("/v1/cache/feedback", json={**said, "delete": True})
    assert kept.cache.get(ADA, entry.id) is None
    assert (await http.post("/v1/cache/feedback", json=said)).status_code == 404


@pytest.mark.parametrize("text", ["What is a cache?", "what is a cache", None])
async def test_an_entry_that_was_wrong_for_its_own_question_is_deleted(http: httpx.AsyncClient, kept: CacheWorld, text: str | None) -> None:
    """The exact tier would give it again."""
    entry = keep(kept, text=text)
    said = {"entry_id": entry.id, "question": "What is a cache?", "correct": False}
    assert (await http.post("/v1/cache/feedback", json=said)).json()["recorded"]
    assert kept.cache.find(ADA, entry.exact_key, "f1", None).exact is None


async def test_what_this_process_has_in_memory_ends_with_its_own_change(http: httpx.AsyncClient, world: World, kept: CacheWorld) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "What is a cache?"}]}

    async def ask() -> httpx.Response:
        answer = await http.post("/v1/chat/completions", json=body)
        await world.keeper.drain()
        return answer

    for change in ("all", "model", "delete", "feedback"):
        assert (await ask()).headers["x-mygo-cache"] == "miss"
        hit = await ask()
        assert hit.headers["x-mygo-cache"] == "exact"
        entry_id = hit.headers["x-mygo-entry"]
        if change == "delete":
            await http.delete(f"/v1/cache/entries/{entry_id}")
        elif change == "feedback":
            await http.post("/v1/cache/feedback", json={"entry_id": entry_id, "question": "What is a cache?", "correct": False})
        else:
            await http.post("/v1/cache/invalidate", json={"all": True} if change == "all" else {"model": MODEL})
    assert (await ask()).headers["x-mygo-cache"] == "miss"


async def test_statistics(http: httpx.AsyncClient, kept: CacheWorld) -> None:
    entry = keep(kept, tokens=7)
    kept.cache.find(ADA, entry.exact_key, "f1", None)
    kept.cache.flush_uses()
    stats = (await http.get("/v1/cache/stats")).json()
    assert stats == {"object": "cache.stats", "entries": 1, "bytes": entry.size, "hits": 1, "tokens_saved": 7, "false_hits": NO_AUDITS}


async def test_the_share_of_wrong_hits_comes_with_its_interval(http: httpx.AsyncClient, kept: CacheWorld) -> None:
    decision = Decision(Reason.HIT, Candidate(keep(kept).id, "What is a cache?"), score=3.0)
    for correct in (True, True, True, False):
        kept.cache.learn(ADA, decision, correct, served=True)
    kept.cache.learn(ADA, decision, False, served=False)  # was not served, so it was no wrong hit
    wrong = (await http.get("/v1/cache/stats")).json()["false_hits"]
    assert (wrong["audited"], wrong["wrong"]) == (4, 1)
    assert 0 < wrong["share_low"] < 0.25 < wrong["share_high"] < 1
    assert (await http.get("/v1/cache/stats", headers=BOB)).json()["false_hits"] == NO_AUDITS
    kept.clock.now += AUDITED_S + 1
    assert (await http.get("/v1/cache/stats")).json()["false_hits"] == NO_AUDITS


async def test_another_tenant_sees_and_ends_nothing(http: httpx.AsyncClient, kept: CacheWorld) -> None:
    entry = keep(kept, tags=("t",))
    path = f"/v1/cache/entries/{entry.id}"
    assert (await http.get("/v1/cache/entries", headers=BOB)).json()["data"] == []
    assert (await http.get("/v1/cache/stats", headers=BOB)).json()["entries"] == 0
    assert [(await http.request(method, path, headers=BOB)).status_code for method in ("GET", "DELETE")] == [404, 404]
    for body in ({"all": True}, {"tag": "t"}, {"model": "m"}):
        assert (await http.post("/v1/cache/invalidate", json=body, headers=BOB)).status_code == 200
    said = {"entry_id": entry.id, "question": "What is a cache?", "correct": False, "delete": True}
    assert (await http.post("/v1/cache/feedback", json=said, headers=BOB)).status_code == 404
    assert (await http.get(path)).status_code == 200
    assert kept.cache.find(ADA, "0", "f1", "What is a cache?").reworded is not None


BAD: list[tuple[str, str, Any, str | None]] = [
    ("GET", "/v1/cache/entries?limit=0", None, "limit"),
    ("GET", "/v1/cache/entries?limit=x", None, "limit"),
    ("GET", "/v1/cache/entries?limit=101", None, "limit"),
    ("GET", f"/v1/cache/entries?limit={'9' * 5000}", None, "limit"),
    ("GET", "/v1/cache/entries?limit=\u00b2", None, "limit"),
    ("GET", f"/v1/cache/entries?after={CANARY * 9}", None, "after"),
    ("GET", f"/v1/cache/entries?model={CANARY * 99}", None, "model"),
    ("GET", f"/v1/cache/entries?tag={CANARY * 9}", None, "tag"),
    ("POST", "/v1/cache/invalidate", {}, None),
    ("POST", "/v1/cache/invalidate", {"all": False}, None),
    ("POST", "/v1/cache/invalidate", {"all": True, "tag": CANARY}, None),
    ("POST", "/v1/cache/invalidate", {"all": "yes"}, "all"),
    ("POST", "/v1/cache/invalidate", {"model": CANARY, "tag": CANARY}, None),
    ("POST", "/v1/cache/invalidate", {"model": CANARY * 99}, "model"),
    ("POST", "/v1/cache/invalidate", {"tag": ""}, "tag"),
    ("POST", "/v1/cache/invalidate", {"tag": 1}, "tag"),
    ("POST", "/v1/cache/invalidate", {f"{CANARY} ": 1}, None),
    ("POST", "/v1/cache/feedback", {"entry_id": CANARY, "question": "x"}, "correct"),
    ("POST", "/v1/cache/feedback", {"entry_id": CANARY, "question": "", "correct": False}, "question"),
    ("POST", "/v1/cache/feedback", {"entry_id": CANARY, "question": "x", "correct": "no"}, "correct"),
    ("POST", "/v1/cache/feedback", {"entry_id": CANARY * 9, "question": "x", "correct": False}, "entry_id"),
    ("POST", "/v1/cache/feedback", {"entry_id": "x", "question": 7, "correct": False}, "question"),
    ("POST", "/v1/cache/feedback", {"entry_id": "x", "question": "x", "correct": False, "tenant": 1}, "tenant"),
    ("POST", "/v1/cache/feedback", [], None),
]


@pytest.mark.parametrize(("method", "path", "body", "param"), BAD)
async def test_bad_input_is_named(http: httpx.AsyncClient, method: str, path: str, body: Any, param: str | None) -> None:
    answer = await http.request(method, path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert CANARY not in answer.text
