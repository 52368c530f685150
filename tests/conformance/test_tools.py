"""Function calling: tools, tool_choice, parallel_tool_calls, and the calls in answers and streams."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall

from tests.conformance.conftest import Post
from tests.conformance.shapes import chat_answer, chat_chunks, error_of
from tests.e2e.system import System

CITIES = ["Paris", "Rome", "Oslo"]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": CITIES}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather in a city.", "parameters": PARAMETERS}}
CLOCK = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {"type": "object", "properties": {"utc": {"type": "boolean"}}, "required": ["utc"], "additionalProperties": False},
    },
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def calls(response: Any) -> list[ChatCompletionMessageFunctionToolCall]:
    """The calls of an answer, whose arguments are JSON that the tool's parameters allow."""
    message = chat_answer(response).choices[0].message
    assert message.tool_calls
    found = [call for call in message.tool_calls if isinstance(call, ChatCompletionMessageFunctionToolCall)]
    assert len(found) == len(message.tool_calls)
    assert len({call.id for call in found}) == len(found)
    for call in found:
        check(call.function.name, call.function.arguments)
    return found


def check(name: str, arguments: str) -> None:
    value = json.loads(arguments)
    if name == "get_weather":
        assert set(value) == {"city", "unit"}
        assert value["city"] in CITIES
        assert value["unit"] in ("celsius", "fahrenheit")
    else:
        assert name == "get_time"
        assert isinstance(value["utc"], bool)


@pytest.mark.parametrize("strict", [None, True, False], ids=["strict left out", "strict", "not strict"])
def test_a_named_function_is_called(ask: Post, real: System, strict: bool | None) -> None:
    function = WEATHER["function"] if strict is None else {**WEATHER["function"], "strict": strict}  # type: ignore[dict-item]
    found = calls(ask(tools=[{"type": "function", "function": function}, CLOCK], tool_choice=NAMED, max_tokens=200))
    assert [call.function.name for call in found] == ["get_weather"]
    assert found[0].type == "function"


def test_required_calls_one_of_the_tools(ask: Post, real: System) -> None:
    response = ask(tools=[WEATHER, CLOCK], tool_choice="required", parallel_tool_calls=False, max_tokens=200)
    assert len(calls(response)) == 1
    assert chat_answer(response).choices[0].finish_reason in ("tool_calls", "stop")


@pytest.mark.parametrize("choice", ["auto", None], ids=["auto", "left out"])
def test_auto_leaves_it_to_the_model(ask: Post, choice: str | None) -> None:
    answer = chat_answer(ask(tools=[WEATHER], tool_choice=choice))
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


def test_none_calls_nothing(ask: Post) -> None:
    message = chat_answer(ask(tools=[WEATHER], tool_choice="none")).choices[0].message
    assert message.content
    assert not message.tool_calls


@pytest.mark.parametrize("kept", [False, True], ids=["computed", "kept"])
def test_a_streamed_call_comes_in_pieces_that_join(ask: Post, real: System, kept: bool) -> None:
    fields: dict[str, Any] = {"tools": [WEATHER], "tool_choice": NAMED, "max_tokens": 200, "stream": True}
    response = ask(**fields)
    if kept:
        response = ask(**fields)
        assert response.headers["x-mygo-cache"] == "exact"
    chunks = chat_chunks(response)
    pieces = [piece for chunk in chunks for piece in chunk.choices[0].delta.tool_calls or []]
    assert {piece.index for piece in pieces} == {0}
    assert pieces[0].id
    assert pieces[0].type == "function"
    functions = [piece.function for piece in pieces if piece.function]
    assert [function.name for function in functions if function.name] == ["get_weather"]
    check("get_weather", "".join(function.arguments or "" for function in functions))
    assert chunks[-1].choices[0].finish_reason in ("tool_calls", "stop")


def test_a_call_is_answered_and_the_chat_goes_on(ask: Post, chat: dict[str, Any], real: System) -> None:
    fields: dict[str, Any] = {"tools": [WEATHER], "tool_choice": NAMED, "max_tokens": 200}
    message = ask(**fields).json()["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": '{"degrees": 21}'}
    answer = chat_answer(ask(messages=[*chat["messages"], message, result], tools=[WEATHER], tool_choice="none"))
    assert answer.choices[0].message.content


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": []}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "x" * 65}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": "none"}}]}, "tools[0].function.parameters"),
        ({"tools": [{"type": "oven"}]}, "tools[0].type"),
        ({"tools": [7]}, "tools[0]"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_rain"}}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": [WEATHER], "parallel_tool_calls": "perhaps"}, "parallel_tool_calls"),
    ],
    ids=[
        "no tools",
        "no function",
        "no type",
        "no name",
        "a name with spaces",
        "a name that is too long",
        "parameters are text",
        "an unknown type",
        "a number",
        "required without tools",
        "auto without tools",
        "an unknown choice",
        "a choice of no tool",
        "a choice without a function",
        "parallel_tool_calls is text",
    ],
)
def test_refused(ask: Post, fields: dict[str, Any], param: str) -> None:
    error_of(ask(**fields), 400, param)
