"""Whatever JSON comes, responses and messages are refused or read to the end."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.anthropic.requests import parse_count, parse_message
from serve_app.content.prompts import prompt_text
from serve_app.errors import InvalidRequestError
from serve_app.openai.keys import key_material
from serve_app.openai.requests import Generation
from serve_app.openai.responses import parse_response

T = TypeVar("T")

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3)
TYPES = st.sampled_from(
    ["text", "image", "input_text", "input_image", "message", "function_call", "tool_use", "tool_result", "function", "mcp"]
)
NAMES = st.sampled_from(["type", "text", "role", "content", "input", "output", "name", "id", "arguments", "thinking", "source"])
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS | TYPES | st.sampled_from(["user", "assistant", "system"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.lists(st.dictionaries(NAMES, JSON), max_size=2)})
)
RESPONSE = st.fixed_dictionaries(
    {"model": st.just("m"), "input": JSON | TURNS},
    optional={"tools": JSON | st.lists(st.dictionaries(NAMES, JSON)), "instructions": JSON, "include": JSON, "text": JSON},
)
MESSAGE = st.fixed_dictionaries(
    {"model": st.just("m"), "max_tokens": st.just(1), "messages": JSON | TURNS},
    optional={"tools": JSON | st.lists(st.dictionaries(NAMES, JSON)), "system": JSON, "tool_choice": JSON},
)


@settings(max_examples=300, deadline=None)
@given(RESPONSE)
def test_responses(body: dict[str, Any]) -> None:
    read(parsed(parse_response, body))


@settings(max_examples=300, deadline=None)
@given(MESSAGE)
def test_messages(body: dict[str, Any]) -> None:
    read(parsed(parse_message, body))
    parsed(parse_count, body)


def parsed(parse: Callable[[bytes], T], body: dict[str, Any]) -> T | None:
    """None: it was refused."""
    try:
        return parse(json.dumps(body).encode())
    except InvalidRequestError:
        return None


def read(request: Generation | None) -> None:
    if request is None:
        return
    assert request.prompt_characters >= 0
    assert request.prompt_bytes >= 2
    assert isinstance(prompt_text(request), str)
    assert key_material(request)


@pytest.mark.parametrize("kind", [[], {}, 1, None])
def test_types_that_are_none(kind: Any) -> None:
    assert parsed(parse_response, {"model": "m", "input": "x", "tools": [{"type": kind}]}) is None
    read(parsed(parse_response, {"model": "m", "input": [{"type": kind, "role": "user", "content": "x"}]}))
    turn = {"role": "user", "content": [{"type": kind, "text": "x"}]}
    assert parsed(parse_message, {"model": "m", "max_tokens": 1, "messages": [turn]}) is None
