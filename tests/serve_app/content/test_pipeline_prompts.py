"""Content rules on the way of prompts, with fakes around the pipeline."""

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from serve_app.content import guard as guard_module
from serve_app.content import prompts
from serve_app.content.moderation_fake import FakeModerator
from serve_app.openai.requests import Generation, parse_completion
from tests.serve_app.asking import ask, caller, chat
from tests.serve_app.content.worlds import BLOCK, MASK, answered, moderated, refused, ruled, says
from tests.serve_app.fakes import CANARY, MODEL, make_world


@pytest.mark.parametrize(
    "request_",
    [
        chat(f"Say {CANARY}!"),
        chat("", messages=[{"role": "system", "content": CANARY}, {"role": "user", "content": "Hello"}]),
        chat("", messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": CANARY.upper()}]}]),
        chat("", messages=[{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": f'{{"a": "{CANARY}"}}'}}]}]),
        chat("", messages=[{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": [CANARY]}}}]}]),
        chat(f"Say {CANARY}!", stream=True, retrieval={"vector_store_ids": ["vs_1"]}),
    ],
    ids=["user", "system", "part", "call", "call's object", "documents"],
)
async def test_a_blocked_prompt_reaches_nothing(request_: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = ruled(BLOCK)
    error = await refused(world, request_)
    assert error.body()["error"] == {
        "message": "The prompt is against the content rule banned.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "content_filter",
    }
    assert world.steps == []
    assert world.metrics.content_matches == [("banned", "block")]
    assert CANARY not in caplog.text


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "look_up", **function}}


def of_property(**schema: Any) -> dict[str, Any]:
    return tool(parameters={"type": "object", "properties": {"who": {"type": "string", **schema}}})


@pytest.mark.parametrize(
    "definition",
    [
        tool(name=CANARY),
        tool(description=f"Says {CANARY}."),
        of_property(description=CANARY),
        of_property(enum=["x", CANARY]),
        of_property(default={"a": [CANARY]}),
        of_property(**{CANARY: True}),
        tool(parameters={"type": "object", "properties": {CANARY: {"type": "string"}}}),
        tool(parameters={"type": CANARY}),
    ],
)
async def test_a_blocked_tool_reaches_nothing(definition: dict[str, Any]) -> None:
    world = ruled(BLOCK)
    error = await refused(world, chat(tools=[tool(), definition]))
    assert (error.param, error.code) == ("tools", "content_filter")
    assert (world.steps, world.cache.entries) == ([], [])
    assert world.metrics.content_matches == [("banned", "block")]


async def test_of_tools_descriptions_are_masked_and_nothing_that_programs_read() -> None:
    world = ruled(MASK, {"name": "json", "words": ["object", "string", "properties", "description", "function"]})
    named = {"type": "object", "properties": {"Bob": {"description": "Bob", "enum": ["Bob"]}, "description": {"const": "Bob"}}}
    await ask(world, chat(tools=[tool(name="Bob", description="Of Bob", parameters=named)]))
    masked = {"type": "object", "properties": {"Bob": {"description": "***", "enum": ["Bob"]}, "description": {"const": "Bob"}}}
    assert world.replicas.bodies[0]["tools"] == [tool(name="Bob", description="Of ***", parameters=masked)]


@pytest.mark.parametrize(
    "function",
    [
        {"name": CANARY, "arguments": "{}"},
        {"name": "f", "arguments": {CANARY: 1}},
        {"name": "f", "arguments": {"a": {"b": [CANARY]}}},
        {"name": "f", "arguments": f'{{"a": "one\\n{CANARY}"}}'},
        {"name": "f", "arguments": f'{{"a": "\\u{ord(CANARY[0]):04x}{CANARY[1:]}"}}'},
    ],
)
async def test_calls_in_a_prompt_are_read_as_programs_read_them(function: dict[str, Any]) -> None:
    world = ruled(BLOCK)
    error = await refused(world, chat("", messages=[{"role": "assistant", "tool_calls": [{"function": function}]}]))
    assert (error.param, error.code, world.steps) == ("messages", "content_filter", [])


@pytest.mark.parametrize("beside", [{"documents": [{"title": CANARY, "text": "x"}]}, {"chat_template_kwargs": {"note": CANARY}}])
async def test_what_a_template_puts_into_a_prompt_is_of_the_prompt(beside: dict[str, Any]) -> None:
    assert (await refused(ruled(BLOCK), chat(**beside))).param == next(iter(beside))


async def test_tools_are_judged_too() -> None:
    world, judge = moderated()
    assert (await refused(world, chat("a plan", tools=[tool(description="all evil")]))).code == "content_filter"
    assert "look_up" in judge.judged[0]


@pytest.mark.parametrize("fields", [{"prompt": CANARY}, {"prompt": ["x", CANARY]}, {"prompt": "x", "suffix": CANARY}])
async def test_completions_have_prompts_too(fields: dict[str, Any]) -> None:
    error = await refused(ruled(BLOCK), parse_completion(json.dumps({"model": MODEL, **fields}).encode()))
    assert (error.param, error.code) == ("prompt", "content_filter")


@pytest.mark.parametrize("prompt", [[1, 2], [[1, 2], [3]]])
async def test_a_prompt_that_nobody_can_read_is_refused(prompt: Any) -> None:
    request = parse_completion(json.dumps({"model": MODEL, "prompt": prompt}).encode())
    assert (await refused(ruled(BLOCK), request)).param == "prompt"
    await ask(ruled({**BLOCK, "where": "answer"}), request)


async def test_a_masked_prompt_goes_on_masked() -> None:
    world = ruled(MASK)
    parts = [{"type": "text", "text": "I am Bob"}, {"type": "image_url", "image_url": {"url": "data:Bob"}}]
    await ask(world, chat("", messages=[{"role": "user", "name": "Bob", "content": parts}]))
    assert world.replicas.bodies[0]["messages"] == [
        {
            "role": "user",
            "name": "Bob",
            "content": [{"type": "text", "text": "I am ***"}, {"type": "image_url", "image_url": {"url": "data:Bob"}}],
        }
    ]
    assert (await ask(world, chat("I am Bob")))[0] == "miss"
    assert (await ask(world, chat("I am ***")))[0] == "exact"
    assert world.metrics.content_matches == [("names", "mask")] * 2


async def test_documents_that_a_chat_brings_are_masked_in_their_texts() -> None:
    world = ruled(MASK)
    brought = [{"title": "Of Bob", "text": "I am Bob", "pages": [{"number": 1, "says": ["Bob", "x"]}]}, "Bob"]
    await ask(world, chat(documents=brought))
    masked = [{"title": "Of ***", "text": "I am ***", "pages": [{"number": 1, "says": ["***", "x"]}]}, "***"]
    assert world.replicas.bodies[0]["documents"] == masked
    assert (await refused(ruled(BLOCK), chat(documents=[{CANARY: "x"}]))).param == "documents"


async def test_a_masked_prompts_documents_are_found_by_what_is_left() -> None:
    world = ruled(MASK)
    await ask(world, chat("Who is Bob?", retrieval={"vector_store_ids": ["vs_1"]}))
    assert world.retrieval.calls[0][1].queries == ["Who is ***?"]


async def test_long_prompts_are_checked_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "LONG_BYTES", 100)
    world = ruled(BLOCK, MASK)
    long = "a long text " * 20
    assert world.pipeline.arrive(chat(long), caller()).asked is None
    assert (await refused(world, chat(long + CANARY))).code == "content_filter"
    assert await answered(world, chat(long + "Bob"), says("Bob")) == ("miss", "***", "stop")
    assert world.replicas.bodies[0]["messages"][0]["content"] == long + "***"
    assert (await ask(world, chat(long + "Bob")))[0] == "exact"


@pytest.mark.parametrize("field", ["tools", "documents", "chat_template_kwargs"])
async def test_long_fields_beside_prompts_are_looked_at_in_a_thread(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "LONG_BYTES", 200)
    judge = FakeModerator({"evil": "violence"})
    world = make_world(judge, content={"all": {"rules": [BLOCK], "moderated": True}, "moderator": {}})
    main, seen = threading.get_ident(), set[int]()
    fields = prompts._fields

    def seen_fields(request: Generation) -> Iterator[tuple[str, str]]:
        seen.add(threading.get_ident())
        return fields(request)

    monkeypatch.setattr(prompts, "_fields", seen_fields)
    texts = ["a"] * 100
    brought: dict[str, Any] = {"tools": [of_property(enum=texts)], "documents": texts, "chat_template_kwargs": {"a": texts}}
    await ask(world, chat(**{field: brought[field]}))
    assert main not in seen
    assert len(judge.judged) == 2


async def test_a_kept_answer_is_not_given_to_a_blocked_prompt() -> None:
    free, strict = make_world(), ruled({**BLOCK, "where": "prompt"})
    await ask(free, chat(CANARY))
    strict.cache.entries += free.cache.entries
    await refused(strict, chat(CANARY))


async def test_rules_are_for_their_side_and_their_tenant() -> None:
    own = {"rules": [{"name": "own", "words": ["Bob"], "where": "prompt"}]}
    world = ruled({**BLOCK, "where": "answer"}, tenants={"acme": own})
    assert (await ask(world, chat(CANARY)))[0] == "miss"
    assert (await ask(world, chat("Bob")))[0] == "miss"
    assert (await refused(world, chat("Bob"), tenant="acme")).message.endswith("own.")
