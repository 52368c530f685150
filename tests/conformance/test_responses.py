"""`POST /v1/responses`: whole and streamed, its input, tools, formats, what it repeats of its request, and what is refused."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.conformance.conftest import Post
from tests.conformance.response_shapes import RESPONSE_FIELDS, named_events, response_answer, response_events, text_of
from tests.conformance.shapes import error_of
from tests.e2e.system import System

AFRESH = {"cache-control": "no-cache"}
CITIES = ["Paris", "Rome", "Oslo"]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": CITIES}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: dict[str, Any] = {"type": "function", "name": "get_weather", "description": "The weather in a city.", "parameters": PARAMETERS}
CLOCK: dict[str, Any] = {
    "type": "function",
    "name": "get_time",
    "parameters": {"type": "object", "properties": {"utc": {"type": "boolean"}}, "required": ["utc"], "additionalProperties": False},
}
NAMED = {"type": "function", "name": "get_weather"}
OF_REQUEST: dict[str, Any] = {"metadata": {"order": "17"}, "user": "u-1", "safety_identifier": "s-1", "prompt_cache_key": "k-1"}
UNSAID: dict[str, Any] = {"metadata": {}, "user": None, "safety_identifier": None, "prompt_cache_key": None}


def answered(respond: Post, stream: bool, **fields: Any) -> dict[str, Any]:
    """The response, however it comes."""
    answer = respond(stream=stream, **fields)
    if not stream:
        return response_answer(answer)
    last: dict[str, Any] = response_events(answer)[-1]["response"]
    return last


# Whole, and as a stream


def test_a_whole_response(respond: Post, system: System) -> None:
    body = response_answer(respond())
    assert body["id"].startswith("resp_")
    assert (body["model"], body["error"], body["background"], body["store"]) == (system.model, None, False, False)
    assert [item["type"] for item in body["output"]] == ["message"]
    assert text_of(body)


def test_a_streamed_response(respond: Post) -> None:
    events = response_events(respond(stream=True))
    kinds = list(dict.fromkeys(event["type"].removeprefix("response.") for event in events))
    message = ["output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done", "output_item.done"]
    assert kinds[:-1] == ["created", "in_progress", *message]


def test_both_say_the_same(respond: Post) -> None:
    whole = response_answer(respond(headers=AFRESH))
    events = response_events(respond(stream=True, headers=AFRESH))
    last = events[-1]["response"]
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == text_of(whole)
    assert last.keys() == whole.keys()
    assert (last["status"], last["usage"]["output_tokens"]) == (whole["status"], whole["usage"]["output_tokens"])


def test_each_response_has_an_id_of_its_own(respond: Post) -> None:
    assert len({response_answer(respond())["id"] for _ in range(3)}) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_the_official_client_reads_it(client: openai.OpenAI, system: System, stream: bool) -> None:
    if stream:
        with client.responses.create(model=system.model, input="Say hello.", stream=True) as events:
            last = list(events)[-1]
        assert last.type in ("response.completed", "response.incomplete")
        response = last.response
    else:
        response = client.responses.create(model=system.model, input="Say hello.")
    assert response.output_text
    assert response.error is None


# The input


def test_the_forms_of_an_input_are_one_prompt(respond: Post, asked: str) -> None:
    part = {"type": "input_text", "text": asked}
    forms: list[Any] = [
        asked,
        [{"role": "user", "content": asked}],
        [{"type": "message", "role": "user", "content": asked}],
        [{"type": "message", "role": "user", "content": [part]}],
        [{"type": "message", "role": "user", "content": [part], "status": "completed"}],
    ]
    answers = [response_answer(respond(input=form, headers=AFRESH)) for form in forms]
    assert len({(text_of(answer), answer["usage"]["input_tokens"]) for answer in answers}) == 1


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_message_with_instructions_is_read(respond: Post, asked: str, role: str, stream: bool) -> None:
    user = {"type": "message", "role": "user", "content": asked}
    plain = answered(respond, stream, input=[user])
    told = answered(respond, stream, input=[{"type": "message", "role": role, "content": "Answer as a pirate would."}, user])
    assert told["usage"]["input_tokens"] > plain["usage"]["input_tokens"]
    assert told["instructions"] is None


def test_instructions_are_read_and_repeated(respond: Post) -> None:
    plain, told = response_answer(respond()), response_answer(respond(instructions="Answer as a pirate would."))
    assert (plain["instructions"], told["instructions"]) == (None, "Answer as a pirate would.")
    assert told["usage"]["input_tokens"] > plain["usage"]["input_tokens"]


@pytest.mark.parametrize(
    "content", ["Hello Alice!", [{"type": "output_text", "text": "Hello Alice!", "annotations": []}]], ids=["text", "parts"]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_with_what_the_model_has_said(respond: Post, asked: str, content: Any, stream: bool) -> None:
    said = {"type": "message", "role": "assistant", "content": content}
    items = [{"type": "message", "role": "user", "content": f"My name is Alice. {asked}"}, said]
    body = answered(respond, stream, input=[*items, {"type": "message", "role": "user", "content": "What is my name?"}])
    assert text_of(body)


@pytest.mark.parametrize("stream", [False, True])
def test_the_output_of_a_response_goes_back_as_it_came(respond: Post, asked: str, stream: bool) -> None:
    user = {"type": "message", "role": "user", "content": asked}
    first = answered(respond, stream, input=[user])
    more = {"role": "user", "content": "And then?"}
    body = answered(respond, stream, input=[user, *first["output"], more])
    as_text = answered(respond, stream, input=[user, {"role": "assistant", "content": text_of(first)}, more])
    assert body["usage"]["input_tokens"] == as_text["usage"]["input_tokens"] > first["usage"]["input_tokens"]


# Tools


@pytest.mark.parametrize("stream", [False, True])
def test_a_named_function_is_called(respond: Post, real: System, stream: bool) -> None:
    body = answered(respond, stream, tools=[WEATHER, CLOCK], tool_choice=NAMED, max_output_tokens=200)
    (call,) = [item for item in body["output"] if item["type"] == "function_call"]
    assert (call["name"], call["status"]) == ("get_weather", "completed")
    assert json.loads(call["arguments"])["city"] in CITIES
    assert body["tool_choice"] == NAMED


@pytest.mark.parametrize("stream", [False, True])
def test_required_calls_one_of_the_tools(respond: Post, real: System, stream: bool) -> None:
    fields = {"tools": [WEATHER, CLOCK], "tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 200}
    body = answered(respond, stream, **fields)
    calls = [item for item in body["output"] if item["type"] == "function_call"]
    assert len(calls) == 1
    assert calls[0]["name"] in ("get_weather", "get_time")
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)


def test_a_streamed_call_has_its_own_events(respond: Post, real: System) -> None:
    events = response_events(respond(stream=True, tools=[WEATHER], tool_choice=NAMED, max_output_tokens=200))
    kinds = [event["type"].removeprefix("response.") for event in events]
    (done,) = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert json.loads(done["arguments"])["city"] in CITIES
    assert "function_call_arguments.delta" in kinds
    (added,) = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert (added["type"], added["arguments"], added["status"]) == ("function_call", "", "in_progress")


@pytest.mark.parametrize("stream", [False, True])
def test_a_calls_result_is_given_back(respond: Post, asked: str, real: System, stream: bool) -> None:
    user = {"type": "message", "role": "user", "content": asked}
    first = answered(respond, stream, input=[user], tools=[WEATHER], tool_choice=NAMED, max_output_tokens=200)
    (call,) = [item for item in first["output"] if item["type"] == "function_call"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"degrees": 21}'}
    body = answered(respond, stream, input=[user, *first["output"], result], tools=[WEATHER], tool_choice="none")
    assert [item["type"] for item in body["output"]] == ["message"]


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_tools_are_repeated_with_all_their_fields(respond: Post, choice: str) -> None:
    body = response_answer(respond(tools=[WEATHER, {**CLOCK, "strict": True}], tool_choice=choice))
    assert body["tool_choice"] == choice
    assert [{key: tool[key] for key in ("name", "description", "strict", "parameters")} for tool in body["tools"]] == [
        {"name": "get_weather", "description": "The weather in a city.", "strict": None, "parameters": PARAMETERS},
        {"name": "get_time", "description": None, "strict": True, "parameters": CLOCK["parameters"]},
    ]


# The form of the text


@pytest.mark.parametrize("stream", [False, True])
def test_text_of_a_schema(respond: Post, real: System, stream: bool) -> None:
    schema = {"type": "string", "enum": ["yes", "perhaps"]}
    form = {"type": "json_schema", "name": "verdict", "schema": schema, "strict": True}
    body = answered(respond, stream, text={"format": form}, max_output_tokens=64)
    assert json.loads(text_of(body)) in schema["enum"]
    assert body["text"] == {"format": {**form, "description": None}}


def test_the_format_is_text_unless_another_is_asked_for(respond: Post) -> None:
    assert response_answer(respond())["text"] == {"format": {"type": "text"}}
    assert response_answer(respond(text={"format": {"type": "text"}, "verbosity": "low"}))["text"] == {
        "format": {"type": "text"},
        "verbosity": "low",
    }


# How it ends, and what it has cost


@pytest.mark.parametrize("kept", [False, True], ids=["computed", "kept"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_is_cut_off_is_incomplete(respond: Post, stream: bool, kept: bool) -> None:
    if kept:
        respond(max_output_tokens=1)
    body = answered(respond, stream, max_output_tokens=1)
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (body["usage"]["output_tokens"], body["max_output_tokens"], body["completed_at"]) == (1, 1, None)


@pytest.mark.parametrize("stream", [False, True])
def test_usage(respond: Post, stream: bool) -> None:
    usage = answered(respond, stream, max_output_tokens=4)["usage"]
    assert usage["input_tokens"] > 0
    assert 0 < usage["output_tokens"] <= 4


def test_log_probabilities(respond: Post, real: System) -> None:
    fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 2, "headers": AFRESH}
    body = response_answer(respond(**fields))
    (part,) = body["output"][0]["content"]
    assert len(part["logprobs"]) == body["usage"]["output_tokens"]
    assert all(len(each["top_logprobs"]) == 2 for each in part["logprobs"])
    assert body["top_logprobs"] == 2
    events = response_events(respond(stream=True, **fields))
    assert [token for event in events if event["type"] == "response.output_text.delta" for token in event["logprobs"]]


# What it repeats of its request


@pytest.mark.parametrize("stream", [False, True])
def test_what_belongs_to_the_request_is_repeated(respond: Post, stream: bool) -> None:
    assert {key: value for key, value in answered(respond, stream, **OF_REQUEST).items() if key in OF_REQUEST} == OF_REQUEST


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_not_said_is_empty(respond: Post, stream: bool) -> None:
    assert {key: value for key, value in answered(respond, stream).items() if key in UNSAID} == UNSAID


@pytest.mark.parametrize("store", [True, False])
def test_a_response_says_that_it_is_not_stored(respond: Post, store: bool) -> None:
    assert response_answer(respond(store=store))["store"] is False


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.5},
        {"top_p": 0.9, "temperature": 0.5},
        {"presence_penalty": 0.5},
        {"frequency_penalty": -0.5},
        {"parallel_tool_calls": False},
        {"truncation": "auto"},
        {"max_tool_calls": 3},
        {"service_tier": "default"},
        {"reasoning": {"effort": "low", "summary": None}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_decides_the_answer_is_repeated(respond: Post, fields: dict[str, Any]) -> None:
    body = response_answer(respond(**fields))
    assert {key: body[key] for key in fields} == fields


# Kept answers


@pytest.mark.parametrize("stream", [False, True])
def test_a_kept_answer_has_the_shape_of_a_computed_one(respond: Post, stream: bool) -> None:
    computed, kept = respond(stream=stream), respond(stream=stream)
    assert [each.headers["x-mygo-cache"] for each in (computed, kept)] == ["miss", "exact"]
    if stream:
        kinds = [list(dict.fromkeys(event["type"] for event in response_events(each))) for each in (computed, kept)]
        assert kinds[0] == kinds[1]
        bodies = [response_events(each)[-1]["response"] for each in (computed, kept)]
    else:
        bodies = [response_answer(each) for each in (computed, kept)]
    assert bodies[0].keys() == bodies[1].keys() >= RESPONSE_FIELDS.keys()
    own = ("id", "created_at", "completed_at")
    first, second = ({key: value for key, value in body.items() if key not in own} for body in bodies)
    assert first == second
    assert bodies[0]["id"] != bodies[1]["id"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_kept_answer_repeats_nothing_of_who_asked_first(respond: Post, stream: bool) -> None:
    respond(**OF_REQUEST)
    for said, fields in (({}, UNSAID), ({"metadata": {"order": "18"}, "user": "u-2"}, {"metadata": {"order": "18"}, "user": "u-2"})):
        answer = respond(stream=stream, **said)
        assert answer.headers["x-mygo-cache"] == "exact"
        told = [event["response"] for event in named_events(answer) if "response" in event] if stream else [answer.json()]
        for body in told:
            assert {key: body[key] for key in fields} == fields
        assert "s-1" not in answer.text
        assert "u-1" not in answer.text


# Refused


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [WEATHER, {"type": "mcp", "server_label": "x", "server_url": "http://x"}]}, "tools[1].type"),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "tools[0].type"),
        ({"tools": [{"type": "image_generation"}]}, "tools[0].type"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_is_not_had_is_refused(respond: Post, fields: dict[str, Any], param: str) -> None:
    error = error_of(respond(**fields), 400, param, "unsupported_parameter")
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 7}, "input"),
        ({"input": []}, "input"),
        ({"model": 7}, "model"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": "many"}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": "a"}, "metadata"),
        ({"user": 7}, "user"),
        ({"safety_identifier": 7}, "safety_identifier"),
        ({"service_tier": "first"}, "service_tier"),
        ({"stream": "yes"}, "stream"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused(respond: Post, fields: dict[str, Any], param: str) -> None:
    error = error_of(respond(**fields), 400)
    assert str(error["param"]).startswith(param)
    assert error["type"] == "invalid_request_error"


def test_the_model_may_be_left_out(respond: Post, system: System) -> None:
    assert response_answer(respond(model=None))["model"] == system.model


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found(respond: Post, stream: bool) -> None:
    error_of(respond(model="gpt-none", stream=stream), 404, code="model_not_found")


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")])
def test_a_response_is_not_there_later(http: httpx.Client, respond: Post, method: str, path: str) -> None:
    body = response_answer(respond())
    error_of(http.request(method, f"/v1/responses/{body['id']}{path}"), 404)
