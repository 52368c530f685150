"""Content rules on the way of requests and answers, with fakes around the pipeline."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from serve_app.content import guard as guard_module
from serve_app.content import prompts
from serve_app.content.moderation_fake import FakeModerator
from serve_app.errors import InvalidRequestError, UnavailableError
from serve_app.openai import sse
from serve_app.openai.requests import Generation, parse_completion
from tests.serve_app.asking import ask, bytes_of, caller, chat, completion, text_of
from tests.serve_app.fakes import CANARY, MODEL, TEXT, FakeAnswer, World, make_world, streamed, whole

BLOCK = {"name": "banned", "words": [CANARY]}
MASK = {"name": "names", "action": "mask", "words": ["Bob"]}


def ruled(*rules: dict[str, Any], **content: Any) -> World:
    return make_world(content={"all": {"rules": list(rules)}, **content})


def moderated(**moderator: Any) -> tuple[World, FakeModerator]:
    fake = FakeModerator({"evil": "violence"})
    return make_world(fake, content={"all": {"moderated": True}, "moderator": moderator}), fake


async def refused(world: World, request: Any, **who: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        await world.pipeline.generate(request, caller(**who))
    return caught.value


async def answered(world: World, request: Any, *answers: FakeAnswer) -> tuple[str, str, str | None]:
    """How the cache was of use, what the answer says, and how it ended."""
    world.replicas.script += answers
    cache, body = await ask(world, request)
    if body.startswith(b"{"):
        return cache, text_of(body), msgspec.json.decode(body)["choices"][0]["finish_reason"]
    chunks = [msgspec.json.decode(payload) for payload in sse.payloads(body) if payload != b"[DONE]"]
    return cache, text_of(body), next(each["choices"][0]["finish_reason"] for each in reversed(chunks) if each["choices"])


def says(text: str, *, stream: bool = False, kind: Any = chat) -> FakeAnswer:
    is_chat = kind is chat
    return FakeAnswer(streamed(text, chat=is_chat) if stream else [whole(text, chat=is_chat)])


# Prompts


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


# Answers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("make", [chat, completion])
async def test_a_blocked_answer_ends_before_the_match_and_is_not_kept(make: Any, stream: bool) -> None:
    world = ruled(BLOCK)
    answer = says(f"The word is {CANARY} and more", stream=stream, kind=make)
    assert await answered(world, make(stream=stream), answer) == ("miss", "The word is ", "content_filter")
    assert answer.closed
    assert world.cache.entries == []
    assert (await ask(world, make(stream=stream)))[0] == "miss"
    assert world.metrics.content_matches == [("banned", "block")]


def calls(name: str, arguments: str, *, stream: bool) -> FakeAnswer:
    """An answer that is one call, its arguments a character at a time."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
    if not stream:
        answer = msgspec.json.decode(whole(""))
        answer["choices"][0] |= {"message": {"role": "assistant", "content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}
        return FakeAnswer([msgspec.json.encode(answer)])
    head = {**call, "function": {"name": name, "arguments": ""}}
    parts = [head, *({"index": 0, "function": {"arguments": char}} for char in arguments)]
    deltas = [{"index": 0, "delta": {"tool_calls": [part]}, "finish_reason": None} for part in parts]
    events = [sse.event({"choices": [each], "usage": None}) for each in (*deltas, {"index": 0, "delta": {}, "finish_reason": "tool_calls"})]
    return FakeAnswer([*events, sse.event({"choices": [], "usage": {"total_tokens": 2}}), sse.DONE])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (CANARY, "{}"),
        ("f", f'{{"a": "{CANARY}"}}'),
        ("f", f'{{"{CANARY}": 1}}'),
        ("f", f'{{"a": "one\\n{CANARY}"}}'),
        ("f", f'{{"a": "\\u{ord(CANARY[0]):04x}{CANARY[1:]}"}}'),
    ],
)
async def test_a_blocked_call_is_not_sent_and_not_kept(name: str, arguments: str, stream: bool) -> None:
    world = ruled(BLOCK)
    world.replicas.script.append(calls(name, arguments, stream=stream))
    _, body = await ask(world, chat(stream=stream))
    assert CANARY[1:].encode() not in body
    assert b'"content_filter"' in body
    assert world.cache.entries == []
    assert world.metrics.content_matches == [("banned", "block")]
    assert (await ask(world, chat(stream=stream)))[0] == "miss"


def said_by(body: bytes) -> tuple[str, str]:
    """Name and arguments of the call in a stream."""
    chunks = [msgspec.json.decode(payload) for payload in sse.payloads(body) if payload != b"[DONE]"]
    parts = [part["function"] for each in chunks for choice in each["choices"] for part in choice["delta"].get("tool_calls", [])]
    return "".join(part.get("name", "") for part in parts), "".join(part["arguments"] for part in parts)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_against_no_rule_is_relayed(stream: bool) -> None:
    world = ruled(BLOCK, MASK)
    arguments = '{"a": "Bob\\n\\u4e2d"}'
    expected = b"".join([chunk async for chunk in calls("Bob", arguments, stream=stream).chunks()])
    world.replicas.script.append(calls("Bob", arguments, stream=stream))
    body = (await ask(world, chat(stream=stream)))[1]
    assert (said_by(body) if stream else body) == (said_by(expected) if stream else expected)
    assert len(world.cache.entries) == 1


async def test_the_engine_is_left_when_its_answer_is_blocked() -> None:
    world = ruled(BLOCK)
    answer = FakeAnswer([*streamed(f"It is {CANARY} and")[:-2], None])  # it would go on for ever
    world.replicas.script.append(answer)
    _, body = await asyncio.wait_for(ask(world, chat(stream=True)), 5)
    assert body.endswith(sse.DONE)
    assert answer.closed


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("make", [chat, completion])
async def test_a_masked_answer_is_kept_masked(make: Any, stream: bool) -> None:
    world = ruled(MASK)
    answer = says("I am Bob, and this is Bob", stream=stream, kind=make)
    for expected in ("miss", "exact"):
        assert await answered(world, make(stream=stream), *([answer] if expected == "miss" else [])) == (
            expected,
            "I am ***, and this is ***",
            "stop",
        )
    assert b"Bob" not in world.cache.entries[0].answer
    assert world.metrics.content_matches == [("names", "mask")] * 2


async def test_an_answer_against_no_rule_is_relayed_byte_for_byte() -> None:
    world = ruled(BLOCK, MASK)
    events = streamed(TEXT)
    assert (await ask(world, chat(stream=True, stream_options={"include_usage": True})))[1] == b"".join(events)
    assert (await ask(world, chat("again")))[1] == whole(TEXT)


async def test_a_renewed_answer_passes_the_rules() -> None:
    world = make_world(content={"all": {"rules": [MASK]}}, cache={"soft_ttl_s": 10.0})
    await ask(world, chat())
    world.clock.now += 11
    world.replicas.script.append(says("Bob"))
    assert (await ask(world, chat()))[0] == "exact"
    await world.renewals.drain()
    await world.keeper.drain()
    assert text_of((await ask(world, chat()))[1]) == "***"


async def test_answers_that_were_kept_under_other_rules_are_not_given() -> None:
    free, strict = make_world(), ruled({**BLOCK, "where": "answer"})
    free.replicas.script.append(says(f"It is {CANARY}"))
    await ask(free, chat())
    strict.cache.entries += free.cache.entries
    assert await answered(strict, chat(), says("It is well")) == ("miss", "It is well", "stop")
    strict.embedding.means["Explain caches."] = "What is a cache?"
    strict.cache.entries[:] = free.cache.entries
    assert (await ask(strict, chat("Explain caches.")))[0] == "miss"


async def test_rules_for_prompts_only_leave_kept_answers() -> None:
    free, strict = make_world(), ruled({**BLOCK, "where": "prompt"})
    await ask(free, chat())
    strict.cache.entries += free.cache.entries
    assert (await ask(strict, chat()))[0] == "exact"


@pytest.mark.parametrize("fields", [{"logprobs": True, "top_logprobs": 1}, {"return_token_ids": True}])
async def test_what_would_show_an_answer_unchecked_is_refused(fields: dict[str, Any]) -> None:
    assert (await refused(ruled(BLOCK), chat("x", **fields))).param == next(iter(fields))
    await ask(ruled({**BLOCK, "where": "prompt"}), chat("x", **fields))
    await ask(ruled(BLOCK), chat("x", logprobs=False))


async def test_no_log_probabilities_are_still_the_tokens() -> None:
    assert (await refused(ruled(BLOCK), completion("x", logprobs=0))).param == "logprobs"


async def test_an_answer_that_cannot_be_read_is_not_sent() -> None:
    world = ruled(BLOCK)
    world.replicas.script.append(FakeAnswer([b"\xff{"]))
    with pytest.raises(Exception, match="could not be read"):
        await world.pipeline.generate(chat(), caller())


# A moderation model


async def test_prompts_are_judged_before_anything_is_done() -> None:
    world, judge = moderated()
    error = await refused(world, chat("an evil plan"))
    assert (error.code, error.message) == ("content_filter", "The prompt is against the content rule moderation.")
    assert world.steps == []
    assert judge.judged == ["an evil plan"]
    assert world.metrics.content_matches == [("moderation", "block")]
    assert world.metrics.operations == [("moderation", "flagged")]


async def test_what_is_to_be_judged_is_not_answered_at_once() -> None:
    world, judge = moderated()
    assert world.pipeline.arrive(chat(), caller()).asked is None
    assert [(await ask(world, chat()))[0] for _ in range(2)] == ["miss", "exact"]
    assert judge.judged == ["What is a cache?", TEXT, "What is a cache?"]


async def test_whole_answers_are_judged_before_they_are_sent() -> None:
    world, _ = moderated()
    assert await answered(world, chat(), says("an evil answer")) == ("miss", "", "content_filter")
    assert world.cache.entries == []


async def test_streamed_answers_are_judged_before_they_are_kept() -> None:
    world, judge = moderated()
    assert await answered(world, chat(stream=True), says("an evil answer", stream=True)) == ("miss", "an evil answer", "stop")
    assert world.cache.entries == []
    assert (await answered(world, chat(stream=True)))[0] == "miss"
    assert len(world.cache.entries) == 1
    assert judge.judged[1::2] == ["an evil answer", TEXT]


async def test_answers_are_judged_only_if_they_are_to_be() -> None:
    world, judge = moderated(answers=False)
    await ask(world, chat())
    await ask(world, chat("another", stream=True))
    assert judge.judged == ["What is a cache?", "another"]
    assert len(world.cache.entries) == 2


async def test_without_a_verdict_it_is_closed_or_open() -> None:
    world, judge = moderated()
    judge.fails = True
    with pytest.raises(UnavailableError) as caught:
        await world.pipeline.generate(chat(), caller())
    assert caught.value.code == "moderation_unavailable"
    assert world.steps == []
    world, judge = moderated(on_failure="open")
    judge.fails = True
    assert (await ask(world, chat()))[0] == "miss"
    assert world.metrics.operations[0] == ("moderation", "failed")


async def test_a_stream_whose_verdict_does_not_come_is_not_kept_when_closed() -> None:
    world, judge = moderated()
    reply = await world.pipeline.generate(chat(stream=True), caller())
    judge.fails = True
    assert text_of(await bytes_of(reply)) == TEXT
    await world.keeper.drain()
    assert world.cache.entries == []


async def test_masked_prompts_are_judged_masked() -> None:
    fake = FakeModerator({})
    world = make_world(fake, content={"all": {"rules": [MASK], "moderated": True}, "moderator": {"answers": False}})
    await ask(world, chat("I am Bob"))
    assert fake.judged == ["I am ***"]
