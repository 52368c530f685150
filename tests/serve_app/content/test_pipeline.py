"""Content rules on the way of answers, with fakes around the pipeline."""

import asyncio
from typing import Any

import msgspec
import pytest

from serve_app.openai import sse
from tests.serve_app.asking import ask, caller, chat, completion, text_of
from tests.serve_app.content.worlds import BLOCK, MASK, answered, refused, ruled, says
from tests.serve_app.fakes import CANARY, TEXT, FakeAnswer, make_world, streamed, whole


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
