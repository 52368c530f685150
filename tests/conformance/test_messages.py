"""Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens`, by Anthropic's reference."""

from typing import Any

import anthropic
import httpx
import pytest

from tests.conformance.conftest import Post
from tests.conformance.message_shapes import anthropic_error, joined, message_answer, message_events, prompt_tokens, text_of
from tests.e2e.conftest import demo_questions
from tests.e2e.system import System

AFRESH = {"cache-control": "no-cache"}
COUNT = "/v1/messages/count_tokens"
CITIES = ["Paris", "Rome", "Oslo"]
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": CITIES}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
CLOCK: dict[str, Any] = {
    "name": "get_time",
    "input_schema": {"type": "object", "properties": {"utc": {"type": "boolean"}}, "required": ["utc"], "additionalProperties": False},
}
NAMED = {"type": "tool", "name": "get_weather"}


def answered(say: Post, stream: bool, **fields: Any) -> dict[str, Any]:
    """The message, however it comes."""
    answer = say(stream=stream, **fields)
    return joined(message_events(answer)) if stream else message_answer(answer)


# Whole, and as a stream


def test_a_whole_message(say: Post, system: System) -> None:
    message = message_answer(say())
    assert (message["model"], [block["type"] for block in message["content"]]) == (system.model, ["text"])
    assert text_of(message)


def test_a_streamed_message(say: Post) -> None:
    events = message_events(say(stream=True))
    kinds = list(dict.fromkeys(event["type"] for event in events))
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert kinds == ["message_start", *block, "message_delta", "message_stop"]


def test_both_say_the_same(say: Post) -> None:
    whole, streamed = (answered(say, stream, headers=AFRESH) for stream in (False, True))
    for key in ("content", "stop_reason", "stop_sequence", "role", "model"):
        assert streamed[key] == whole[key]
    assert streamed["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


def test_a_request_has_an_id_in_a_header(say: Post) -> None:
    ids = [say().headers["request-id"] for _ in range(2)]
    assert all(ids)
    assert ids[0] != ids[1]


@pytest.mark.parametrize("stream", [False, True])
def test_the_official_client_reads_it(system: System, tenant: dict[str, str], stream: bool) -> None:
    turns: Any = [{"role": "user", "content": "Say hello."}]
    with anthropic.Anthropic(base_url=system.url, api_key="unused", max_retries=0, timeout=60, default_headers=tenant) as client:
        if stream:
            with client.messages.stream(model=system.model, max_tokens=16, messages=turns) as events:
                message: Any = events.get_final_message()
        else:
            message = client.messages.create(model=system.model, max_tokens=16, messages=turns)
    assert message.content[0].type == "text"
    assert message.stop_reason in ("end_turn", "max_tokens")


# The prompt


def test_the_forms_of_a_content_are_one_prompt(say: Post, asked: str) -> None:
    forms: list[Any] = [asked, [{"type": "text", "text": asked}]]
    answers = [message_answer(say(messages=[{"role": "user", "content": form}], headers=AFRESH)) for form in forms]
    assert len({(text_of(answer), prompt_tokens(answer)) for answer in answers}) == 1


@pytest.mark.parametrize("system_", ["Be brief.", [{"type": "text", "text": "Be brief."}]], ids=["text", "blocks"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_system_prompt_is_read(say: Post, system_: Any, stream: bool) -> None:
    assert prompt_tokens(answered(say, stream, system=system_)) > prompt_tokens(answered(say, stream))


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_model_has_said_goes_back_as_it_came(say: Post, asked: str, stream: bool) -> None:
    turn = {"role": "user", "content": asked}
    first = answered(say, stream)
    more = [{"role": "assistant", "content": first["content"]}, {"role": "user", "content": "And then?"}]
    as_text = [{"role": "assistant", "content": text_of(first)}, more[1]]
    lengths = [prompt_tokens(answered(say, stream, messages=[turn, *turns])) for turns in (more, as_text)]
    assert lengths[0] == lengths[1] > prompt_tokens(first)


# How it ends


@pytest.mark.parametrize("kept", [False, True], ids=["computed", "kept"])
@pytest.mark.parametrize("stream", [False, True])
def test_max_tokens(say: Post, stream: bool, kept: bool) -> None:
    if kept:
        say(max_tokens=1)
    message = answered(say, stream, max_tokens=1)
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("max_tokens", 1)


@pytest.mark.parametrize("stream", [False, True])
def test_an_end_of_its_own(say: Post, stream: bool) -> None:
    question = demo_questions()[0]["question"]
    message = answered(say, stream, messages=[{"role": "user", "content": question}], max_tokens=2000)
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_is_told(say: Post, stream: bool) -> None:
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": demo_questions()[0]["question"]}], "max_tokens": 200}
    word = text_of(message_answer(say(**fields))).split()[3]
    message = answered(say, stream, stop_sequences=["never said", word], **fields)
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", word)
    assert word not in text_of(message)


# Tools


@pytest.mark.parametrize(
    ("choice", "names"), [(NAMED, ["get_weather"]), ({"type": "any"}, ["get_weather", "get_time"])], ids=["tool", "any"]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_used(say: Post, real: System, choice: dict[str, str], names: list[str], stream: bool) -> None:
    tool_choice = {**choice, "disable_parallel_tool_use": True}
    message = answered(say, stream, tools=[WEATHER, CLOCK], tool_choice=tool_choice, max_tokens=200)
    (use,) = [block for block in message["content"] if block["type"] == "tool_use"]
    assert use["name"] in names
    if use["name"] == "get_weather":
        assert use["input"]["city"] in CITIES
    assert message["stop_reason"] == "tool_use"


@pytest.mark.parametrize("choice", [None, {"type": "auto"}, {"type": "none"}], ids=["left out", "auto", "none"])
def test_a_tool_need_not_be_used(say: Post, choice: dict[str, str] | None) -> None:
    message = message_answer(say(tools=[WEATHER], tool_choice=choice))
    if choice == {"type": "none"}:
        assert [block["type"] for block in message["content"]] == ["text"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_tools_result_is_given_back(say: Post, asked: str, real: System, stream: bool) -> None:
    turn = {"role": "user", "content": asked}
    first = answered(say, stream, tools=[WEATHER], tool_choice=NAMED, max_tokens=200)
    (use,) = [block for block in first["content"] if block["type"] == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": use["id"], "content": '{"degrees": 21}'}
    turns = [turn, {"role": "assistant", "content": first["content"]}, {"role": "user", "content": [result]}]
    message = answered(say, stream, messages=turns, tools=[WEATHER], tool_choice={"type": "none"})
    assert [block["type"] for block in message["content"]] == ["text"]


# Usage, and counts


@pytest.mark.parametrize("stream", [False, True])
def test_usage(say: Post, stream: bool) -> None:
    message = answered(say, stream, max_tokens=4)
    assert prompt_tokens(message) > 0
    assert 0 < message["usage"]["output_tokens"] <= 4


@pytest.mark.parametrize(
    "fields",
    [{}, {"system": "Be brief."}, {"tools": [WEATHER]}, {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}],
    ids=["a turn", "a system prompt", "a tool", "blocks"],
)
def test_tokens_are_counted_as_messages_have_them(say: Post, fields: dict[str, Any]) -> None:
    counted = say(path=COUNT, max_tokens=None, temperature=None, **fields)
    assert counted.status_code == 200, counted.text
    assert counted.json() == {"input_tokens": prompt_tokens(message_answer(say(**fields)))}


# Kept answers


@pytest.mark.parametrize("stream", [False, True])
def test_a_kept_answer_has_the_shape_of_a_computed_one(say: Post, stream: bool) -> None:
    answers = [say(stream=stream) for _ in range(2)]
    assert [each.headers["x-mygo-cache"] for each in answers] == ["miss", "exact"]
    messages = [joined(message_events(each)) if stream else message_answer(each) for each in answers]
    assert messages[0].keys() == messages[1].keys()
    assert {**messages[0], "id": ""} == {**messages[1], "id": ""}
    assert messages[0]["id"] != messages[1]["id"]
    if stream:
        kinds = [list(dict.fromkeys(event["type"] for event in message_events(each))) for each in answers]
        assert kinds[0] == kinds[1]


# Errors


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": None},
        {"max_tokens": 0},
        {"messages": None},
        {"messages": []},
        {"messages": [{"role": "robot", "content": "Hi"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]},
        {"model": None},
        {"temperature": 2},
        {"stop_sequences": "stop"},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [{"type": "code_execution_20250522", "name": "code_execution"}]},
        {"mcp_servers": [{"type": "url", "url": "http://x", "name": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "x"}}]}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_or_not_had_is_refused(say: Post, fields: dict[str, Any], stream: bool) -> None:
    message = anthropic_error(say(stream=stream, **fields), 400, "invalid_request_error")
    assert next(iter(fields)) in message


def test_an_unknown_model_is_not_found(say: Post) -> None:
    for path in ("/v1/messages", COUNT):
        anthropic_error(say(path=path, model="claude-none"), 404, "not_found_error")


def test_what_is_no_json_is_refused(http: httpx.Client) -> None:
    for path in ("/v1/messages", COUNT):
        anthropic_error(http.post(path, content=b"{", headers={"content-type": "application/json"}), 400, "invalid_request_error")


def test_a_prompt_that_is_too_long_is_refused(say: Post) -> None:
    anthropic_error(say(messages=[{"role": "user", "content": "word " * 9000}]), 400, "invalid_request_error")
