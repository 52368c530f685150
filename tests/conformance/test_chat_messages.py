"""POST /v1/chat/completions: messages of each role, as texts and as parts."""

from typing import Any

import pytest

from tests.conformance.conftest import Post
from tests.conformance.shapes import chat_answer, error_of
from tests.e2e.system import System

USER = {"role": "user", "content": "What is a cache?"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "cache"}'}}
ASKS_FOR_TOOL = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOL = {"role": "tool", "tool_call_id": "call_1", "content": "A store of answers."}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


TAKEN: list[tuple[str, list[dict[str, Any]]]] = [
    ("user", [USER]),
    ("system, user", [{"role": "system", "content": "Be brief."}, USER]),
    ("developer, user", [{"role": "developer", "content": "Be brief."}, USER]),
    ("several turns", [USER, {"role": "assistant", "content": "A store."}, {"role": "user", "content": "Of what?"}]),
    ("assistant last", [USER, {"role": "assistant", "content": "A store"}]),
    ("user with a name", [{**USER, "name": "anna"}]),
    ("user in parts", [{"role": "user", "content": [text("What is"), text("a cache?")]}]),
    ("system in parts", [{"role": "system", "content": [text("Be brief.")]}, USER]),
    ("developer in parts", [{"role": "developer", "content": [text("Be brief.")]}, USER]),
    ("assistant in parts", [USER, {"role": "assistant", "content": [text("A store.")]}, USER]),
    ("assistant refuses in parts", [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, USER]),
    ("assistant refuses", [USER, {"role": "assistant", "content": None, "refusal": "No."}, USER]),
    (
        "assistant with null fields",
        [USER, {"role": "assistant", "content": "A.", "refusal": None, "audio": None, "function_call": None}, USER],
    ),
    ("tool call and its result", [USER, ASKS_FOR_TOOL, TOOL]),
    ("tool result in parts", [USER, ASKS_FOR_TOOL, {**TOOL, "content": [text("A store"), text("of answers.")]}]),
    ("tool call with content", [USER, {**ASKS_FOR_TOOL, "content": "I look it up."}, TOOL]),
    ("two tool calls", [USER, {**ASKS_FOR_TOOL, "tool_calls": [CALL, {**CALL, "id": "call_2"}]}, TOOL, {**TOOL, "tool_call_id": "call_2"}]),
    ("tool call without content", [USER, {"role": "assistant", "tool_calls": [CALL]}, TOOL]),
    ("empty user text", [{"role": "user", "content": ""}]),
    ("text beyond ASCII", [{"role": "user", "content": "什么是缓存? \U0001f642 é"}]),
]


@pytest.mark.parametrize("messages", [messages for _, messages in TAKEN], ids=[name for name, _ in TAKEN])
def test_taken(ask: Post, messages: list[dict[str, Any]]) -> None:
    answer = chat_answer(ask(messages=messages))
    assert answer.choices[0].message.role == "assistant"


REFUSED: list[tuple[str, list[Any], str]] = [
    ("role missing", [{"content": "What?"}], "messages[0].role"),
    ("role null", [{"role": None, "content": "What?"}], "messages[0].role"),
    ("user without content", [{"role": "user"}], "messages[0].content"),
    ("user with null", [{"role": "user", "content": None}], "messages[0].content"),
    ("second user without content", [USER, {"role": "user"}], "messages[1].content"),
    ("system without content", [{"role": "system"}, USER], "messages[0].content"),
    ("assistant without anything", [USER, {"role": "assistant"}, USER], "messages[1].content"),
    ("no parts", [{"role": "user", "content": []}], "messages[0].content"),
    ("part without a type", [{"role": "user", "content": [{"text": "What?"}]}], "messages[0].content[0].type"),
    ("part of an unknown type", [{"role": "user", "content": [{"type": "smell", "text": "x"}]}], "messages[0].content[0].type"),
    ("text part without text", [{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
    ("text part with a number", [{"role": "user", "content": [{"type": "text", "text": 7}]}], "messages[0].content[0].text"),
    ("tool without its call", [USER, ASKS_FOR_TOOL, {"role": "tool", "content": "x"}], "messages[2].tool_call_id"),
    ("tool without content", [USER, ASKS_FOR_TOOL, {"role": "tool", "tool_call_id": "call_1"}], "messages[2].content"),
    ("a message is null", [None], "messages[0]"),
]


@pytest.mark.parametrize(("messages", "param"), [each[1:] for each in REFUSED], ids=[name for name, *_ in REFUSED])
def test_refused(ask: Post, messages: list[Any], param: str) -> None:
    error = error_of(ask(messages=messages), 400, param)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_media_is_refused_by_a_model_that_reads_texts_only(ask: Post, real: System, kind: str) -> None:
    part = {
        "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
        "input_audio": {"data": "UklGRg==", "format": "wav"},
        "file": {"file_data": "data:application/pdf;base64,JVBERg==", "filename": "a.pdf"},
    }[kind]
    error = error_of(ask(messages=[{"role": "user", "content": [text("What is this?"), {"type": kind, kind: part}]}]), 400)
    assert error["type"] == "invalid_request_error"


def test_system_and_developer_say_the_same(ask: Post, real: System) -> None:
    def tokens(role: str) -> int:
        usage = chat_answer(ask(messages=[{"role": role, "content": "Be brief."}, USER])).usage
        assert usage
        return usage.prompt_tokens

    assert tokens("system") == tokens("developer")


def test_parts_are_read_as_their_text(ask: Post, real: System) -> None:
    whole = chat_answer(ask(messages=[{"role": "user", "content": "What is MyGO Serve?"}], max_tokens=40))
    parts = chat_answer(ask(messages=[{"role": "user", "content": [text("What is MyGO Serve?")]}], max_tokens=40, cache={"mode": "off"}))
    assert parts.choices[0].message.content == whole.choices[0].message.content
    assert parts.usage
    assert whole.usage
    assert parts.usage.prompt_tokens == whole.usage.prompt_tokens
