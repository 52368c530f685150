"""Kept contexts over HTTP, with simulated engines behind."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from deployments.kept_prefixes import KeptPrefixes
from serve_app.contexts.service import Contexts
from serve_app.contexts.store import ContextStore, open_contexts
from serve_app.errors import ContextStoreError
from tests.deployments.prefix_fleet import MODEL, ingress_of
from tests.deployments.servers import eventually
from tests.serve_app.clients import error_of
from tests.serve_app.contexts.house import (
    ADA,
    BLOCK,
    BOB,
    IMAGE,
    LIMIT,
    RULES,
    SYSTEM,
    House,
    NotRendering,
    cached,
    house_namespace,
    house_of,
    marked,
)


async def test_a_context_is_made_and_chats_begin_with_it(house: House) -> None:
    made = await house.make(name="rules", description="of the house", metadata={"version": "1"}, ttl=60)
    assert made["id"].startswith("cache-")
    assert made["tokens"] > 300
    assert made["tokens"] % BLOCK == 0
    times = {"created_at": 1_000_000, "expired_at": 1_000_060}
    said = {"name": "rules", "description": "of the house", "metadata": {"version": "1"}, "tools": None, **times}
    expected = {"id": made["id"], "object": "context_cache_object", "status": "ready", "model": MODEL.name, "messages": [SYSTEM], **said}
    assert made == {**expected, "tokens": made["tokens"]}
    assert (await house.http.get(f"/v1/caching/{made['id']}", headers=ADA)).json() == made
    answer = await house.ask(f"cache_id={made['id']}")
    assert cached(answer) == made["tokens"]
    assert answer.headers["msh-context-cache-id"] == made["id"]
    assert answer.headers["msh-context-cache-token-exp"] == "1000060"
    whole = await house.chat([SYSTEM, {"role": "user", "content": "Which?"}])
    assert whole.json()["choices"] == answer.json()["choices"]  # as if the messages had been written out


async def test_its_tools_are_the_chats(house: House) -> None:
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    made = await house.make(tools=tools)
    answer = await house.ask(f"cache_id={made['id']}")
    assert cached(answer) == made["tokens"]
    whole = await house.chat([SYSTEM, {"role": "user", "content": "Which?"}], tools=tools)
    assert whole.json()["usage"]["prompt_tokens"] == answer.json()["usage"]["prompt_tokens"]


async def test_its_tools_are_masked_as_a_chats(tmp_path: Path) -> None:
    content = {"all": {"rules": [{"name": "names", "action": "mask", "words": ["Bob"]}]}}
    function = {"name": "find", "description": "Finds Bob.", "parameters": {"type": "object"}}
    async with house_of(tmp_path, content=content) as house:
        made = await house.make(tools=[{"type": "function", "function": function}])
        assert made["tools"] == [{"type": "function", "function": {**function, "description": "Finds ***."}}]
        assert cached(await house.ask(f"cache_id={made['id']}")) == made["tokens"]
        assert (await house.make(text=f"{RULES} Again.", tools=[]))["tools"] == []


async def test_a_kept_answer_to_the_same_chat_serves_both_ways_of_asking(house: House) -> None:
    made = await house.make()
    on = {"mode": "on"}
    first = await house.chat([SYSTEM, {"role": "user", "content": "Which?"}], cache=on)
    again = await house.ask(f"cache_id={made['id']}", cache=on)
    assert (first.headers["x-mygo-cache"], again.headers["x-mygo-cache"]) == ("miss", "exact")
    assert again.json()["choices"] == first.json()["choices"]
    assert again.headers["msh-context-cache-id"] == made["id"]


async def test_no_tenant_reaches_anothers(house: House) -> None:
    made = await house.make(tags=["mine"])
    for answer in (
        await house.ask(f"cache_id={made['id']}", headers=BOB),
        await house.ask("tag=mine", headers=BOB),
        await house.http.get(f"/v1/caching/{made['id']}", headers=BOB),
        await house.http.put(f"/v1/caching/{made['id']}", json={"ttl": 1}, headers=BOB),
        await house.http.delete(f"/v1/caching/{made['id']}", headers=BOB),
        await house.http.get("/v1/caching/refs/tags/mine", headers=BOB),
        await house.http.get("/v1/caching/refs/tags/mine/content", headers=BOB),
        await house.http.post("/v1/caching/refs/tags", json={"tag": "mine", "cache_id": made["id"]}, headers=BOB),
    ):
        assert answer.status_code == 404, answer.text
        assert RULES[:20] not in answer.text
    assert (await house.http.get("/v1/caching", headers=BOB)).json()["data"] == []
    assert cached(await house.chat([SYSTEM, {"role": "user", "content": "Which?"}], BOB)) == 0
    assert cached(await house.ask(f"cache_id={made['id']}")) == made["tokens"]


async def test_its_time_ends_and_is_put_off_by_use(house: House) -> None:
    made = await house.make(ttl="1m")
    house.now += 50
    answer = await house.ask(f"cache_id={made['id']};reset_ttl=100")
    assert answer.headers["msh-context-cache-token-exp"] == "1000150"
    await house.contexts.look()
    house.now += 99
    assert (await house.ask(f"cache_id={made['id']}")).status_code == 200
    house.now += 1
    ended = await house.ask(f"cache_id={made['id']}")
    assert (ended.status_code, error_of(ended)["code"]) == (404, "context_not_found")
    assert (await house.http.get(f"/v1/caching/{made['id']}", headers=ADA)).status_code == 404
    await house.contexts.look()
    await eventually(lambda: house.kept() == 0)


async def test_it_can_be_changed_and_deleted(house: House) -> None:
    made = await house.make()
    path = f"/v1/caching/{made['id']}"
    changed = (await house.http.put(path, json={"expired_at": 1_000_500, "metadata": {"a": "b"}}, headers=ADA)).json()
    assert changed == {**made, "expired_at": 1_000_500, "metadata": {"a": "b"}}
    deleted = await house.http.delete(path, headers=ADA)
    assert deleted.json() == {"id": made["id"], "object": "context_cache_object.deleted", "deleted": True}
    for answer in (await house.http.get(path, headers=ADA), await house.ask(f"cache_id={made['id']}")):
        assert answer.status_code == 404
    assert (await house.http.delete(path, headers=ADA)).status_code == 404
    await eventually(lambda: house.kept() == 0)


async def test_tags(house: House) -> None:
    one, two = await house.make(tags=["current"]), await house.make("Other rules. " * 60)
    assert cached(await house.ask("tag=current")) == one["tokens"]
    set_anew = await house.http.post("/v1/caching/refs/tags", json={"tag": "current", "cache_id": two["id"]}, headers=ADA)
    tag = {"tag": "current", "cache_id": two["id"], "object": "cache_object.tag", "created_at": 1_000_000}
    assert set_anew.json() == tag
    assert cached(await house.ask("tag=current")) == two["tokens"]
    assert (await house.http.get("/v1/caching/refs/tags", headers=ADA)).json() == {"object": "list", "data": [tag]}
    assert (await house.http.get("/v1/caching/refs/tags/current/content", headers=ADA)).json()["id"] == two["id"]
    assert (await house.http.delete("/v1/caching/refs/tags/current", headers=ADA)).json()["deleted"]
    assert (await house.ask("tag=current")).status_code == 404


async def test_a_list_goes_page_by_page(house: House) -> None:
    made = []
    for number in range(3):
        house.now += 1
        made.append(await house.make(f"{number} {RULES}"))
    first = (await house.http.get("/v1/caching?limit=2", headers=ADA)).json()
    assert [each["id"] for each in first["data"]] == [made[2]["id"], made[1]["id"]]
    rest = (await house.http.get(f"/v1/caching?after={first['last_id']}", headers=ADA)).json()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == ([made[0]["id"]], False)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "cache", "content": "cache_id=a"}]}, "messages[0].role"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": "soon"}, "ttl"),
        ({"expired_at": 999_999}, "expired_at"),
        ({"ttl": 5, "expired_at": 1_000_100}, "ttl"),
        ({"tags": ["1"]}, "tags"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"name": "n" * 257}, "name"),
        ({"stream": True}, "stream"),
        ({"messages": [{"role": "user", "content": "Short."}]}, "messages"),
        ({"messages": [SYSTEM, {"role": "user", "content": [IMAGE]}]}, "messages"),
    ],
)
async def test_what_cannot_be_made(house: House, body: dict[str, Any], param: str) -> None:
    whole = {"model": MODEL.name, "messages": [SYSTEM], **body} if body else {"messages": [SYSTEM]}
    answer = await house.http.post("/v1/caching", json=whole, headers=ADA)
    assert answer.status_code == 400, answer.text
    assert error_of(answer)["param"].startswith(param)
    assert (await house.http.get("/v1/caching", headers=ADA)).json()["data"] == []


async def test_what_is_not_measured_in_time_is_not_said_to_be_wrong(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house.ingress.routing._renderer, "_client", NotRendering(house.ingress.client))
    answer = await house.http.post("/v1/caching", json={"model": MODEL.name, "messages": [SYSTEM]}, headers=ADA)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_a_model_that_is_not_there(house: House) -> None:
    answer = await house.http.post("/v1/caching", json={"model": "other", "messages": [SYSTEM]}, headers=ADA)
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")


async def test_a_tenant_has_no_more_kept_than_it_may(house: House) -> None:
    made = [await house.make(f"{number} {RULES}") for number in range(4)]
    refused = await house.http.post(
        "/v1/caching", json={"model": MODEL.name, "messages": [{"role": "system", "content": f"5 {RULES}"}]}, headers=ADA
    )
    assert (refused.status_code, error_of(refused)["code"]) == (429, "context_quota")
    await house.make(headers=BOB)
    await house.http.delete(f"/v1/caching/{made[0]['id']}", headers=ADA)
    await house.make(f"5 {RULES}")


async def test_a_contexts_tokens_count_before_they_are_computed(tmp_path: Path) -> None:
    async with house_of(tmp_path, limits={"tokens_per_minute": 1000}) as house:
        made = await house.make()
        assert (await house.ask(f"cache_id={made['id']}")).status_code == 200
        refused = await house.ask(f"cache_id={made['id']}", "And which other?")
        assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
        assert error_of(refused)["type"] == "tokens"
        assert int(refused.headers["retry-after"]) > 0


async def test_what_no_replica_has_room_for_is_not_made(tmp_path: Path) -> None:
    async with house_of(tmp_path, tokens=None) as house:
        for number in range(2):  # a replica for each
            await house.make(f"{number} {RULES * 16}")
        messages = [{"role": "system", "content": f"2 {RULES * 16}"}]
        refused = await house.http.post("/v1/caching", json={"model": MODEL.name, "messages": messages}, headers=ADA)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "context_capacity")
        assert (await house.http.get("/v1/caching", headers=ADA)).json()["data"][0]["messages"] != messages


async def test_content_rules_hold_for_contexts(tmp_path: Path) -> None:
    rules = {"all": {"rules": [{"name": "fruit", "words": ["forbidden fruit"], "action": "block"}]}}
    async with house_of(tmp_path, content=rules) as house:
        body = {"model": MODEL.name, "messages": [{"role": "system", "content": f"forbidden fruit {RULES}"}]}
        refused = await house.http.post("/v1/caching", json=body, headers=ADA)
        assert refused.status_code == 400, refused.text
        assert house.kept() == 0


@pytest.mark.parametrize("times", [1, 12])  # long prompts are checked later
async def test_what_content_rules_mask_is_kept_masked(tmp_path: Path, times: int) -> None:
    rules = {"all": {"rules": [{"name": "fruit", "words": ["forbidden fruit"], "action": "mask"}]}}
    async with house_of(tmp_path, tokens=None, content=rules) as house:
        made = await house.make(f"forbidden fruit {RULES * times}")
        assert made["messages"] == [{"role": "system", "content": f"*** {RULES * times}"}]
        assert cached(await house.ask(f"cache_id={made['id']}")) == made["tokens"]


async def test_an_alias_is_the_model(tmp_path: Path) -> None:
    async with house_of(tmp_path, llm={"model": {"name": MODEL.name, "aliases": ["other"]}}) as house:
        body = {"model": "other", "messages": [SYSTEM]}
        made = (await house.http.post("/v1/caching", json=body, headers=ADA)).json()
        assert made["model"] == MODEL.name
        assert cached(await house.ask(f"cache_id={made['id']}", model="other")) == made["tokens"]


async def test_another_ingress_and_one_that_begins_anew_know_it(house: House) -> None:
    made = await house.make()
    async with ingress_of(*house.nodes, name="two") as other:
        kept = KeptPrefixes(other.client, other.directory, other.routing, asyncio.get_running_loop().time)
        second = Contexts(house.contexts._open_store, kept, LIMIT, house.clock)
        await second.look()
        await eventually(lambda: kept.tokens_of(house_namespace(second)) == made["tokens"])
        await house.http.delete(f"/v1/caching/{made['id']}", headers=ADA)
        await second.look()
        assert kept.tokens_of(house_namespace(second)) == 0
        await second.close()


async def test_while_the_database_is_away_chats_are_answered(tmp_path: Path) -> None:
    away = True

    def open_store() -> ContextStore:
        if away:
            raise ContextStoreError("it is away")
        return open_contexts(f"sqlite:///{tmp_path}/contexts.db")

    async with house_of(tmp_path, open_store=open_store) as house:
        assert (await house.chat(marked())).status_code == 200
        body = {"model": MODEL.name, "messages": [SYSTEM]}
        refused = await house.http.post("/v1/caching", json=body, headers=ADA)
        assert (refused.status_code, error_of(refused)["code"]) == (503, "contexts_unavailable")
        away = False
        await house.make()
