"""A tenant's own cache over HTTP: seen, ended, carried away and brought back."""

import json
from typing import Any

import httpx
import pytest

from tests.e2e.system import System, poll
from tests.e2e.test_cache import Chat, ask, asking, text_of, tier, wait_kept

CANARY = "canary-7f3a9"
OTHER = {"x-mygo-tenant": "other"}


def get(http: httpx.Client, path: str, **headers: str) -> Any:
    return http.get(f"/v1/cache/{path}", headers=headers).raise_for_status().json()


def post(http: httpx.Client, path: str, body: Any) -> Any:
    return http.post(f"/v1/cache/{path}", json=body).raise_for_status().json()


def send(http: httpx.Client, *lines: Any) -> Any:
    content = b"".join(each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in lines)
    return http.post("/v1/cache/import", content=content).raise_for_status().json()


def export(http: httpx.Client) -> list[Any]:
    response = http.get("/v1/cache/export").raise_for_status()
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def answers(system: System, text: str) -> Chat:
    """A chat with default parameters."""
    return {"model": system.model, "messages": [{"role": "user", "content": text}]}


def test_an_entry_is_listed_shown_and_deleted(http: httpx.Client, chat: Chat) -> None:
    answer = ask(http, {**chat, "cache": {"tags": ["t"]}})
    wait_kept(http, 1)
    (listed,) = get(http, "entries?tag=t")["data"]
    assert (listed["object"], listed["text"], listed["tags"]) == ("cache.entry", chat["messages"][0]["content"], ["t"])
    assert listed["tokens"] == answer.json()["usage"]["completion_tokens"]
    shown = get(http, f"entries/{listed['id']}")
    assert shown["answer"]["choices"][0]["message"]["content"] == text_of(answer)
    assert ask(http, chat).headers["x-mygo-entry"] == listed["id"]
    assert http.delete(f"/v1/cache/entries/{listed['id']}").json()["deleted"]
    poll("a miss", 5, lambda: tier(ask(http, chat)) == "miss")
    assert http.delete(f"/v1/cache/entries/{listed['id']}").status_code == 404


def test_long_lists_come_in_pages(http: httpx.Client, system: System) -> None:
    send(http, *({"text": f"Why {number}?", "answer": "Because.", "model": system.model} for number in range(3)))
    first = get(http, "entries?limit=2")
    second = get(http, f"entries?limit=2&after={first['last_id']}")
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert sorted(each["text"] for each in first["data"] + second["data"]) == [f"Why {number}?" for number in range(3)]


@pytest.mark.parametrize("scope", ["all", "model", "tag"])
def test_an_invalidated_answer_is_computed_anew(http: httpx.Client, system: System, chat: Chat, scope: str) -> None:
    tagged = {**chat, "cache": {"tags": ["t"]}}
    assert [tier(ask(http, tagged)), tier(ask(http, tagged))] == ["miss", "exact"]
    wait_kept(http, 1)
    assert post(http, "invalidate", {"all": {"all": True}, "model": {"model": system.model}, "tag": {"tag": "t"}}[scope])["epoch"] >= 1
    poll("a miss", 5, lambda: tier(ask(http, tagged)) == "miss")


def test_statistics_count_what_was_saved(http: httpx.Client, chat: Chat) -> None:
    unaudited = {"audited": 0, "wrong": 0, "share_low": 0.0, "share_high": 1.0}
    nothing = {"entries": 0, "bytes": 0, "hits": 0, "tokens_saved": 0, "false_hits": unaudited}
    assert get(http, "stats") == {"object": "cache.stats", **nothing}
    ask(http, chat)
    wait_kept(http, 1)
    stats = get(http, "stats")
    assert stats["entries"] == 1
    assert stats["bytes"] > 100
    assert [tier(ask(http, chat)) for _ in range(3)] == ["exact"] * 3
    used: dict[str, Any] = poll("three hits", 10, lambda: found if (found := get(http, "stats"))["hits"] == 3 else None)
    assert used["tokens_saved"] > 0


def test_a_wrong_hit_is_not_given_again(http: httpx.Client, system: System) -> None:
    question, reworded = "What is the purpose of a KV cache?", "please, what's the purpose of a KV cache"
    ask(http, asking(system, question))
    wait_kept(http, 1)
    hit = ask(http, asking(system, reworded))
    assert tier(hit) == "semantic"
    said = {"entry_id": hit.headers["x-mygo-entry"], "question": reworded, "correct": False}
    assert post(http, "feedback", said)["recorded"]
    assert ask(http, asking(system, reworded)).headers.get("x-mygo-entry") != said["entry_id"]
    # The two differ in nothing that could change the answer, so it is wrong for the entry's own question, too.
    poll("a new answer", 5, lambda: ask(http, asking(system, question)).headers.get("x-mygo-entry") != said["entry_id"])
    assert http.post("/v1/cache/feedback", json=said).status_code == 404


def test_an_imported_answer_is_given_without_an_engine(http: httpx.Client, system: System) -> None:
    line: dict[str, Any] = {"text": "Who wrote this cache?", "answer": "Its authors. 🙂", "model": system.model, "tags": ["faq"]}
    assert send(http, line) == {"object": "cache.import", "imported": 1, "errors": []}
    exact, stream = ask(http, answers(system, line["text"])), ask(http, {**answers(system, line["text"]), "stream": True})
    reworded = ask(http, answers(system, "please, who wrote this cache"))
    assert [tier(each) for each in (exact, stream, reworded)] == ["exact", "exact", "semantic"]
    assert {text_of(each) for each in (exact, stream, reworded)} == {line["answer"]}
    assert get(http, "entries?tag=faq")["data"][0]["text"] == line["text"]


def test_bad_lines_are_named_and_the_others_kept(http: httpx.Client, system: System) -> None:
    good = {"text": "Why?", "answer": "Because.", "model": system.model}
    broken = [b'{"text": "\xff", "answer": "x"}\n', b'{"text": "a\x00b"}\n', {**good, "model": CANARY}, {**good, "answer": 7}]
    report = send(http, good, *broken, {**good, "text": "Why not?"})
    assert (report["imported"], [error["line"] for error in report["errors"]]) == (2, [2, 3, 4, 5])
    assert CANARY not in str(report)


def restored(http: httpx.Client, chat: Chat, old: set[str]) -> httpx.Response:
    """An answer under a new id. An ingress may serve what it has in memory for a second more."""
    hit: httpx.Response = poll("another entry", 5, lambda: found if (found := ask(http, chat)).headers["x-mygo-entry"] not in old else None)
    return hit


def test_an_export_is_brought_back(http: httpx.Client, chat: Chat) -> None:
    french = {**chat, "messages": [{"role": "system", "content": "Answer in French."}, *chat["messages"]]}
    texts = [text_of(ask(http, each)) for each in (chat, french)]
    wait_kept(http, 2)
    exported = export(http)
    assert len(exported) == 2
    post(http, "invalidate", {"all": True})
    assert export(http) == []
    assert send(http, *exported)["imported"] == 2
    old = {each["id"] for each in exported}
    for each, text in zip((chat, french), texts, strict=True):
        hit = restored(http, each, old)
        assert (tier(hit), text_of(hit)) == ("exact", text)


def test_another_tenant_sees_and_ends_nothing(http: httpx.Client, chat: Chat) -> None:
    ask(http, chat)
    wait_kept(http, 1)
    entry_id = get(http, "entries")["data"][0]["id"]
    said = {"entry_id": entry_id, "question": "x", "correct": False, "delete": True}
    assert all(each["id"] != entry_id for each in get(http, "entries", **OTHER)["data"])
    assert entry_id not in http.get("/v1/cache/export", headers=OTHER).text
    assert [http.request(method, f"/v1/cache/entries/{entry_id}", headers=OTHER).status_code for method in ("GET", "DELETE")] == [404, 404]
    assert http.post("/v1/cache/feedback", json=said, headers=OTHER).status_code == 404
    assert http.post("/v1/cache/invalidate", json={"all": True}, headers=OTHER).status_code == 200
    assert ask(http, chat).headers["x-mygo-entry"] == entry_id


BAD: list[tuple[str, str, Any, str | None]] = [
    ("GET", "entries?limit=0", None, "limit"),
    ("GET", f"entries?limit={CANARY}", None, "limit"),
    ("GET", f"entries?limit={'9' * 999}", None, "limit"),
    ("POST", "invalidate", {}, None),
    ("POST", "invalidate", {"all": True, "tag": CANARY}, None),
    ("POST", "invalidate", {"model": 7}, "model"),
    ("POST", "feedback", {"entry_id": CANARY, "question": "x"}, "correct"),
    ("POST", "feedback", [CANARY], None),
]


@pytest.mark.parametrize(("method", "path", "body", "param"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input(http: httpx.Client, method: str, path: str, body: Any, param: str | None) -> None:
    response = http.request(method, f"/v1/cache/{path}", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert CANARY not in response.text
