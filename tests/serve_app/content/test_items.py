"""Content rules on the way of `/v1/responses` and `/v1/messages`."""

import json
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.anthropic.message_fields import CompletingMessage
from serve_app.anthropic.requests import parse_message
from serve_app.content.base import Rule
from serve_app.content.factory import make_matcher
from serve_app.content.json_text import passed_json
from serve_app.content.moderation_fake import FakeModerator
from serve_app.content.named_events import ruled_events
from serve_app.errors import InvalidRequestError
from serve_app.openai.completing import Completing
from serve_app.openai.requests import Generation
from serve_app.openai.response_fields import CompletingResponse
from serve_app.openai.responses import parse_response
from tests.serve_app.asking import ask, bytes_of, caller
from tests.serve_app.content.finding import rule
from tests.serve_app.content.test_stream import cut
from tests.serve_app.fakes import CANARY, MODEL, FakeAnswer, World, make_world
from tests.serve_app.formats import CALL, deltas_of, message, message_events, response, response_events, values_of

BLOCK = {"name": "banned", "words": [CANARY]}
MASK = {"name": "names", "action": "mask", "words": ["Bob"]}
TOLD = f"Ask Bob about {CANARY} now."
ARGUMENTS = f'{{"who": "Bob", "what": "{CANARY}"}}'
ESCAPED = f'{{"what": "one\\n{CANARY}"}}'


def ruled(*rules: dict[str, Any]) -> World:
    return make_world(content={"all": {"rules": list(rules)}})


def a_response(**fields: Any) -> Generation:
    return parse_response(json.dumps({"model": MODEL, "input": "Hello", **fields}).encode())


def a_message(**fields: Any) -> Generation:
    asked = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
    return parse_message(json.dumps({**asked, **fields}).encode())


# Prompts


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (a_response(input=CANARY), "input"),
        (a_response(instructions=CANARY), "input"),
        (a_response(input=[{"role": "user", "content": [{"type": "input_text", "text": CANARY}]}]), "input"),
        (a_response(input=[{"type": "function_call", "call_id": "c", "name": "f", "arguments": CANARY}]), "input"),
        (a_response(input=[{"type": "function_call_output", "call_id": "c", "output": CANARY}]), "input"),
        (a_response(input=[{"type": "custom_tool_call", "call_id": "c", "name": "f", "input": CANARY}]), "input"),
        (a_response(input=[{"type": "reasoning", "summary": [{"type": "summary_text", "text": CANARY}]}]), "input"),
        (a_response(input=[{"type": "function_call", "call_id": "c", "name": CANARY, "arguments": "{}"}]), "input"),
        (a_response(input=[{"type": "function_call", "call_id": "c", "name": "f", "arguments": ESCAPED}]), "input"),
        (a_response(tools=[{"type": "function", "name": "f", "description": CANARY}]), "tools"),
        (a_response(tools=[{"type": "custom", "name": "f", "format": {"type": "grammar", "definition": CANARY}}]), "tools"),
        (a_message(tools=[{"name": CANARY, "input_schema": {}}]), "tools"),
        (a_message(tools=[{"name": "f", "input_schema": {"properties": {CANARY: {}}}}]), "tools"),
        (a_message(messages=[{"role": "assistant", "content": [{"type": "tool_use", "name": CANARY, "input": {}}]}]), "messages"),
        (a_message(messages=[{"role": "assistant", "content": [{"type": "tool_use", "input": {CANARY: 1}}]}]), "messages"),
        (a_message(system=CANARY), "messages"),
        (a_message(system=[{"type": "text", "text": CANARY}]), "messages"),
        (a_message(messages=[{"role": "user", "content": CANARY}]), "messages"),
        (a_message(messages=[{"role": "user", "content": [{"type": "tool_result", "content": CANARY}]}]), "messages"),
        (a_message(messages=[{"role": "user", "content": [{"type": "tool_result", "content": [{"text": CANARY}]}]}]), "messages"),
        (a_message(messages=[{"role": "assistant", "content": [{"type": "tool_use", "input": {"a": [CANARY]}}]}]), "messages"),
        (a_message(messages=[{"role": "assistant", "content": [{"type": "thinking", "thinking": CANARY}]}]), "messages"),
    ],
)
async def test_a_blocked_prompt_reaches_nothing(request_: Generation, param: str) -> None:
    world = ruled(BLOCK)
    with pytest.raises(InvalidRequestError) as caught:
        await world.pipeline.generate(request_, caller())
    assert (caught.value.param, caught.value.code) == (param, "content_filter")
    assert world.steps == []


async def test_a_masked_prompt_goes_on_masked() -> None:
    world = ruled(MASK)
    world.replicas.script += [FakeAnswer([response("Hi")]), FakeAnswer([message("Hi")])]
    await ask(world, a_response(instructions="I am Bob", input=[{"type": "function_call", "name": "Bob", "arguments": "Bob"}]))
    await ask(world, a_message(system="I am Bob"))
    sent = world.replicas.bodies
    assert sent[0]["instructions"] == sent[1]["system"] == "I am ***"
    assert sent[0]["input"] == [{"type": "function_call", "name": "Bob", "arguments": "Bob"}]


async def test_what_would_show_an_answer_twice_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await ruled(BLOCK).pipeline.generate(a_response(include=["message.output_text.logprobs"]), caller())
    assert caught.value.param == "include"


# Answers in one piece


async def whole(world: World, request: Generation, raw: bytes) -> Any:
    world.replicas.script.append(FakeAnswer([raw]))
    return msgspec.json.decode((await ask(world, request))[1])


def completing_at(request: Generation, answer: dict[str, Any]) -> Completing:
    """What adds to an engine's answer what vLLM leaves out, at the time at which that has been done."""
    return CompletingResponse(request.body, partial(int, answer["completed_at"])) if request.kind == "response" else CompletingMessage()


async def test_answers_that_no_rule_meets_pass_byte_for_byte() -> None:
    """With what vLLM leaves out."""
    world = ruled(BLOCK, MASK)
    for request, raw in ((a_response(), response("Hi", CALL)), (a_message(), message("Hi"))):
        world.replicas.script.append(FakeAnswer([raw]))
        told = (await ask(world, request))[1]
        assert told == completing_at(request, msgspec.json.decode(told)).whole(raw)


async def test_whole_answers_are_masked_but_for_what_programs_read() -> None:
    world = ruled(MASK)
    answer = await whole(world, a_response(), response("I am Bob.", {**CALL, "arguments": '{"name": "Bob"}'}))
    assert answer["output"][0]["content"][0]["text"] == "I am ***."
    assert (answer["output"][1]["arguments"], answer["status"]) == ('{"name": "Bob"}', "completed")
    answer = await whole(world, a_message(), message("I am Bob.", {"type": "tool_use", "input": {"name": "Bob"}}))
    assert [answer["content"][0]["text"], answer["content"][1]["input"]] == ["I am ***.", {"name": "Bob"}]
    assert world.metrics.content_matches == [("names", "mask")] * 2


async def test_a_whole_response_ends_before_what_is_blocked() -> None:
    answer = await whole(ruled(BLOCK, MASK), a_response(), response(TOLD, {**CALL, "arguments": "{}"}))
    (said,) = answer["output"]
    assert (said["content"][0]["text"], said["status"]) == ("Ask *** about ", "incomplete")
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    for call in ({"arguments": ARGUMENTS}, {"arguments": ESCAPED}, {"arguments": "{}", "name": CANARY}):
        answer = await whole(ruled(BLOCK), a_response(), response("Look:", {**CALL, **call}))
        assert [each["type"] for each in answer["output"]] == ["message"]
        assert CANARY not in str(answer)


async def test_a_whole_message_ends_before_what_is_blocked() -> None:
    answer = await whole(ruled(BLOCK, MASK), a_message(), message(TOLD, {"type": "tool_use", "input": {}}))
    assert answer["content"] == [{"type": "text", "text": "Ask *** about "}]
    assert answer["stop_reason"] == "refusal"
    for call in ({"input": {"a": CANARY}}, {"input": {CANARY: 1}}, {"input": {"a": f"one\n{CANARY}"}}, {"input": {}, "name": CANARY}):
        answer = await whole(ruled(BLOCK), a_message(), message("", {"type": "tool_use", **call}))
        assert answer["content"] == [{"type": "text", "text": ""}]
        assert answer["stop_reason"] == "refusal"


@pytest.mark.parametrize("text", ["all evil", "all good"])
async def test_the_model_judges_whole_answers(text: str) -> None:
    moderator = {"url": "http://fake"}
    world = make_world(FakeModerator({"evil": "violence"}), content={"all": {"moderated": True}, "moderator": moderator})
    passes = text == "all good"
    answer = await whole(world, a_response(), response(text))
    assert (answer["status"], bool(answer["output"])) == (("completed", True) if passes else ("incomplete", False))
    answer = await whole(world, a_message(), message(text))
    assert (answer["stop_reason"], answer["content"][0]["text"]) == (("end_turn", text) if passes else ("refusal", ""))


# Streams


async def streamed(world: World, request: Generation, events: list[bytes]) -> bytes:
    answer = FakeAnswer(events)
    world.replicas.script.append(answer)
    raw = await bytes_of(await world.pipeline.generate(request, caller()))
    assert answer.closed
    return raw


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_streams_are_masked_wherever_they_are_cut(size: int) -> None:
    def cut(events: list[bytes]) -> list[bytes]:
        raw = b"".join(events)
        return [raw[at : at + size] for at in range(0, len(raw), size)]

    world = ruled(MASK, BLOCK)
    raw = await streamed(world, a_response(stream=True), cut(response_events("I am Bob and Bob", '{"name": "Bob"}')))
    assert deltas_of(raw) == 'I am *** and ***{"name": "Bob"}'
    values = values_of(raw)
    assert [value["sequence_number"] for value in values] == list(range(len(values)))
    done = [value for value in values if value["type"].endswith(".done")]
    assert done[0]["text"] == done[1]["part"]["text"] == done[2]["item"]["content"][0]["text"] == "I am *** and ***"
    assert values[-1]["response"]["output"][0]["content"][0]["text"] == "I am *** and ***"
    assert values[-1]["response"]["output"][1]["arguments"] == '{"name": "Bob"}'
    raw = await streamed(world, a_message(stream=True), cut(message_events("I am Bob and Bob", '{"name": "Bob"}')))
    assert deltas_of(raw) == 'I am *** and ***{"name": "Bob"}'
    assert [value["type"] for value in values_of(raw)][-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert world.metrics.content_matches == [("names", "mask")] * 4


async def test_streams_that_no_rule_meets_say_the_same() -> None:
    world = ruled(BLOCK, MASK)
    for request, events in (
        (a_response(stream=True), response_events("Hi there", "{}")),
        (a_message(stream=True), message_events("Hi you", "{}")),
    ):
        told = await streamed(world, request, events)
        completing = completing_at(request, values_of(told)[-1].get("response", {}))
        assert values_of(told) == values_of(b"".join(map(completing.feed, events)))


@pytest.mark.parametrize(
    ("text", "arguments", "left"), [(TOLD, "", "Ask *** about "), ("Look:", ARGUMENTS, "Look:"), ("Look:", ESCAPED, "Look:")]
)
async def test_a_streamed_response_ends_before_what_is_blocked(text: str, arguments: str, left: str) -> None:
    raw = await streamed(ruled(BLOCK, MASK), a_response(stream=True), response_events(text, arguments))
    assert CANARY.encode() not in raw
    assert deltas_of(raw).startswith(left)
    *_, last = values_of(raw)
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")
    assert last["response"]["incomplete_details"] == {"reason": "content_filter"}
    (said,) = last["response"]["output"]
    assert (said["content"][0]["text"], said["id"]) == (left, "msg_1")


@pytest.mark.parametrize(
    ("text", "arguments", "left"), [(TOLD, "", "Ask *** about "), ("Look:", ARGUMENTS, "Look:"), ("Look:", ESCAPED, "Look:")]
)
async def test_a_streamed_message_ends_before_what_is_blocked(text: str, arguments: str, left: str) -> None:
    raw = await streamed(ruled(BLOCK, MASK), a_message(stream=True), message_events(text, arguments))
    assert CANARY.encode() not in raw
    assert deltas_of(raw).startswith(left)
    *_, stop, delta, end = values_of(raw)
    assert (stop["type"], stop["index"]) == ("content_block_stop", 1 if arguments else 0)
    assert (delta["delta"]["stop_reason"], end["type"]) == ("refusal", "message_stop")
    assert delta["usage"]["output_tokens"] > 0


async def test_a_streamed_call_is_blocked_by_its_name() -> None:
    for request, events in (
        (a_response(stream=True), response_events("Look:", "{}")),
        (a_message(stream=True), message_events("Look:", "{}")),
    ):
        world = ruled(BLOCK)
        raw = await streamed(world, request, [each.replace(b"look_up", CANARY.encode()) for each in events])
        assert CANARY.encode() not in raw
        assert deltas_of(raw) == "Look:"
        assert world.metrics.content_matches == [("banned", "block")]
        assert world.cache.entries == []


async def test_what_is_said_without_deltas_is_blocked_as_well() -> None:
    events = [each for each in response_events(TOLD) if b".delta" not in each]
    for kept in (events, [each for each in events if b"_text.done" not in each], [events[0], events[-1]]):
        raw = await streamed(ruled(BLOCK), a_response(stream=True), kept)
        assert CANARY.encode() not in raw
        assert values_of(raw)[-1]["type"] == "response.incomplete"


def of_events(raw: list[bytes], request: Generation) -> bytes:
    matcher = make_matcher([rule("secret"), rule("Bob", mask=True)])
    assert matcher is not None
    passing = ruled_events(request, matcher, list[Rule]().append)
    return b"".join(map(passing.feed, raw))


@given(
    st.lists(st.sampled_from(["Bob", "secret", "sec", "ret", r"\u0073", r"\n", "\\", '"', " "]), min_size=1, max_size=8).map("".join),
    st.lists(st.integers(0, 60)),
)
def test_however_arguments_come_the_stream_is_ended_where_they_are(arguments: str, places: list[int]) -> None:
    for request, make in ((a_response(stream=True), response_events), (a_message(stream=True), message_events)):
        in_pieces = of_events(make("", arguments, cut(arguments, places)), request)
        at_once = of_events(make("", arguments, [arguments]), request)
        assert deltas_of(in_pieces) == deltas_of(at_once)
        assert values_of(in_pieces)[-1]["type"] == values_of(at_once)[-1]["type"]
        matcher = make_matcher([rule("secret")])
        assert matcher is not None
        assert deltas_of(in_pieces) == passed_json(arguments, matcher)[0]
