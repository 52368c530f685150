"""Marks on messages over HTTP, with simulated engines behind."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from deployments.config import ModelConfig
from serve_app.config import load_config
from serve_app.contexts.asked import Mark
from serve_app.contexts.beginnings import named
from serve_app.openai.requests import parse_chat
from serve_app.tenants import Caller
from tests.deployments.prefix_fleet import MODEL, ingress_of, nodes_of
from tests.deployments.servers import eventually
from tests.serve_app.clients import client_of
from tests.serve_app.contexts.house import (
    ADA,
    BLOCK,
    BOB,
    ENGINE,
    IMAGE,
    RULES,
    SYSTEM,
    House,
    NotRendering,
    cached,
    house_namespace,
    house_of,
    marked,
)
from tests.serve_app.fakes import World
from tests.serve_app.test_augment import Documents, hits


async def test_a_mark_has_the_prompt_kept_up_to_it(house: House) -> None:
    first = await house.chat(marked())
    assert (first.headers["x-mygo-context"], cached(first)) == ("new", 0)
    await eventually(lambda: house.knows_kept() == 1)
    again = await house.chat(marked("And which other?"))
    assert again.headers["x-mygo-context"] == "kept"
    assert cached(again) > 300
    (prefix,) = (prefix for node in house.nodes for prefix in node.keeper._prefixes.values())
    assert len(prefix.tokens) <= cached(again) <= len(prefix.tokens) + BLOCK  # what comes behind it may begin alike


@pytest.mark.parametrize("stream", [False, True])
async def test_a_marked_stream_too(house: House, stream: bool) -> None:
    answer = await house.chat(marked(), stream=stream)
    assert answer.status_code == 200
    await eventually(lambda: house.knows_kept() == 1)


async def test_a_mark_in_anthropics_messages(house: House) -> None:
    async def ask(question: str) -> httpx.Response:
        system = [{"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}}]
        body = {"model": MODEL.name, "system": system, "messages": [{"role": "user", "content": question}], "max_tokens": 4}
        return await house.http.post("/v1/messages", json=body, headers=ADA)

    first = await ask("Which?")
    assert (first.status_code, first.headers["x-mygo-context"]) == (200, "new")
    await eventually(lambda: house.knows_kept() == 1)
    again = await ask("And which other?")
    assert again.headers["x-mygo-context"] == "kept"
    assert again.json()["usage"]["cache_read_input_tokens"] > 300


async def test_a_tenants_marks_are_limited_with_its_contexts(house: House) -> None:
    for number in range(4):
        await house.make(f"{number} {RULES}")
    await house.chat(marked())
    await eventually(lambda: not house.contexts._tasks)
    assert (await house.chat(marked())).headers["x-mygo-context"] == "over_quota"
    assert house.kept() == 4


async def test_a_mark_that_is_not_measured_in_time_is_found_out_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer, client = house.ingress.routing._renderer, house.ingress.client
    monkeypatch.setattr(renderer, "_client", NotRendering(client, b'"add_generation_prompt":false'))
    await house.chat(marked())
    await eventually(lambda: not house.contexts._tasks)
    monkeypatch.setattr(renderer, "_client", client)
    assert (await house.chat(marked())).headers["x-mygo-context"] == "new"
    await eventually(lambda: house.knows_kept() == 1)


async def test_a_mark_on_what_is_shorter_than_a_block(house: House) -> None:
    await house.chat(marked(text="Be brief."))
    await eventually(lambda: not house.contexts._tasks)
    assert (await house.chat(marked(text="Be brief."))).headers["x-mygo-context"] == "too_short"
    assert house.kept() == 0


async def test_marks_of_two_tenants_are_two(house: House) -> None:
    await house.chat(marked(), ADA)
    await house.chat(marked(), BOB)
    await eventually(lambda: house.kept() == 2)


async def test_where_nothing_is_kept_marks_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    config = load_config({"llm": {"model": {"name": MODEL.name}}, "data_dir": str(tmp_path)})
    world = World(config)
    async with nodes_of("a", config=ENGINE) as nodes, ingress_of(*nodes) as ingress:
        world.pipeline = replace(world.pipeline, directory=ingress.directory, routing=ingress.routing, client=ingress.client)
        async with client_of(world) as http:
            body = {"model": MODEL.name, "messages": marked(), "max_tokens": 4}
            answer = await http.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200
            assert "x-mygo-context" not in answer.headers
            reference = {**body, "messages": [{"role": "cache", "content": "cache_id=a"}, {"role": "user", "content": "?"}]}
            assert (await http.post("/v1/chat/completions", json=reference)).status_code == 404
            for method, path in (("POST", "/v1/caching"), ("GET", "/v1/caching/cache-1")):
                assert (await http.request(method, path)).status_code == 404


async def test_a_mark_lives_on_when_a_context_that_begins_alike_is_deleted(house: House) -> None:
    await house.chat(marked(ttl="1h"))
    await eventually(lambda: house.knows_kept() == 1)
    made = await house.make()
    await house.http.delete(f"/v1/caching/{made['id']}", headers=ADA)
    await eventually(lambda: not house.contexts.kept._dropped)
    assert house.kept() == 1
    assert (await house.chat(marked(ttl="1h"))).headers["x-mygo-context"] == "kept"


async def test_a_mark_lives_on_when_a_context_that_begins_alike_ends(house: House) -> None:
    await house.chat(marked(ttl="1h"))
    await eventually(lambda: house.knows_kept() == 1)
    await house.make(ttl="1m")
    house.now += 61
    await house.contexts.look()
    assert (await house.chat(marked(ttl="1h"))).headers["x-mygo-context"] == "kept"


async def test_an_end_that_is_brought_forward_is_that_contexts_alone(house: House) -> None:
    short, long = await house.make(ttl="1h"), await house.make(ttl="1h")
    await house.http.put(f"/v1/caching/{short['id']}", json={"ttl": 60}, headers=ADA)
    (prefix,) = house.contexts.kept._prefixes.values()
    assert prefix.until - asyncio.get_running_loop().time() > 3000
    house.now += 61
    await house.contexts.look()
    assert (await house.http.get(f"/v1/caching/{long['id']}", headers=ADA)).json()["status"] == "ready"
    assert house.kept() == 1


async def test_what_a_mark_and_a_context_share_counts_once(tmp_path: Path) -> None:
    async with house_of(tmp_path, tokens=600) as house:
        await house.chat(marked())
        await eventually(lambda: house.knows_kept() == 1)
        made = await house.make()
        assert house.contexts.kept.tokens_of(house_namespace(house.contexts)) == made["tokens"]


async def test_names_of_marks_are_computed_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def counted(*args: Any) -> tuple[Mark, ...]:
        computed.append(args)
        return named(*args)

    monkeypatch.setattr("serve_app.contexts.service.named", counted)
    for count in (1, 2):  # what is new is found out, what is known is not
        await house.chat(marked())
        await eventually(lambda: house.knows_kept() == 1)
        assert len(computed) == count


@pytest.mark.parametrize(
    "fields", [{"chat_template": "{{ messages }}"}, {"reasoning_effort": "low"}, {"tool_choice": "none"}, {"mm_processor_kwargs": {"a": 1}}]
)
async def test_whatever_may_change_the_prompt_makes_another_mark(house: House, fields: dict[str, Any]) -> None:
    await house.chat(marked())
    await eventually(lambda: house.knows_kept() == 1)
    assert (await house.chat(marked())).headers["x-mygo-context"] == "kept"
    assert (await house.chat(marked(), **fields)).headers["x-mygo-context"] == "new"


async def test_what_is_kept_for_an_adapter_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"name": MODEL.name, "adapters": {"loud": "x"}}
    monkeypatch.setattr("tests.deployments.prefix_fleet.MODEL", ModelConfig.model_validate(model))
    async with house_of(tmp_path, llm={"model": model}) as house:
        made = await house.make()
        for name in (MODEL.name, "loud"):
            await house.chat(marked(), model=name)
        await eventually(lambda: house.knows_kept() == 2)
        assert {prefix.chain.adapter for prefix in house.contexts.kept._prefixes.values()} == {None, "loud"}
        body = {"model": "loud", "messages": [SYSTEM]}
        loud = (await house.http.post("/v1/caching", json=body, headers=ADA)).json()
        assert (loud["model"], loud["tokens"]) == ("loud", made["tokens"])
        assert len(house.contexts.kept._prefixes) == 2
        assert cached(await house.ask(f"cache_id={loud['id']}", model="loud")) >= loud["tokens"]


async def test_documents_decide_whose_kv_a_mark_keeps(tmp_path: Path) -> None:
    documents = Documents(hits("of the group"), scope="shared")
    async with house_of(tmp_path, documents=documents) as house:
        asked: dict[str, Any] = {"retrieval": {"vector_store_ids": ["group_1"]}}
        await house.chat(marked(), **asked)
        await eventually(lambda: house.knows_kept() == 1)
        assert (await house.chat(marked(), **asked)).headers["x-mygo-context"] == "kept"
        documents.scope = "others"
        assert (await house.chat(marked(), **asked)).headers["x-mygo-context"] == "new"
        await eventually(lambda: house.knows_kept() == 2)
        assert {prefix.chain.salt for prefix in house.contexts.kept._prefixes.values()} == {"shared", "others"}


async def test_a_mark_behind_an_image_is_not_kept(house: House) -> None:
    said = {"role": "user", "content": [IMAGE, {"type": "text", "text": "Which?", "cache_control": {"type": "ephemeral"}}]}
    asked = {"model": MODEL.name, "messages": [SYSTEM, said]}  # the simulated engine takes no images
    request = house.contexts.marked(parse_chat(msgspec.json.encode(asked)), "ada")
    assert request.context_headers == {"x-mygo-context": "media"}
    begun = house.contexts.keeping(request, Caller("id"), "ada")
    assert begun
    begun("a")
    assert not house.contexts._tasks
