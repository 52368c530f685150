"""Responses and events as vLLM writes them, with all that OpenAI's reference requires."""

import json
from typing import Any

import msgspec
import pytest

from serve_app.openai.response_fields import CompletingResponse, complete
from serve_app.openai.sse import named
from tests.serve_app.fakes import TEXT
from tests.serve_app.formats import response, response_events, values_of

NOW = 1_700_000_000
REQUIRED = {
    "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id", "instructions", "output",
    "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p", "presence_penalty", "frequency_penalty",
    "top_logprobs", "temperature", "reasoning", "user", "usage", "max_output_tokens", "max_tool_calls", "store", "background",
    "service_tier", "metadata", "safety_identifier", "prompt_cache_key",
}  # fmt: skip
MAY_BE_NULL = {
    "completed_at", "incomplete_details", "previous_response_id", "instructions", "error", "reasoning", "user", "usage",
    "max_output_tokens", "max_tool_calls", "safety_identifier", "prompt_cache_key",
}  # fmt: skip
NULLS: dict[str, Any] = {"text": None, "metadata": None, "top_logprobs": None, "kv_transfer_params": None, "input_messages": None}
"""As vLLM writes what was not asked for."""


def whole(fields: dict[str, Any], asked: dict[str, Any] | None = None) -> dict[str, Any]:
    return complete({**msgspec.json.decode(response(TEXT)), **NULLS, **fields}, asked or {}, NOW)


def completing() -> CompletingResponse:
    return CompletingResponse({}, lambda: NOW)


@pytest.mark.parametrize("fields", [{}, {"status": "in_progress", "output": [], "usage": None}], ids=["whole", "begun"])
def test_every_field_is_there_and_has_a_value_where_it_must(fields: dict[str, Any]) -> None:
    answer = whole(fields)
    assert answer.keys() >= REQUIRED
    assert {key for key, value in answer.items() if value is None} <= MAY_BE_NULL
    assert (answer["text"], answer["metadata"], answer["store"]) == ({"format": {"type": "text"}}, {}, False)
    assert answer["completed_at"] == (None if fields else NOW)
    assert not answer.keys() & {"kv_transfer_params", "input_messages"}


def test_what_the_engine_says_stays() -> None:
    said = {"temperature": 0.5, "top_logprobs": 3, "max_output_tokens": 7, "truncation": "auto", "kv_transfer_params": {"a": 1}}
    answer = whole(said, {"temperature": 0.1, "max_output_tokens": 9})
    assert {key: answer[key] for key in said} == said


def test_what_it_leaves_out_is_the_requests() -> None:
    asked = {"instructions": "Be brief.", "top_logprobs": 2, "max_tool_calls": 1, "metadata": {"a": "b"}, "user": "u", "store": True}
    answer = whole({}, asked)
    assert {key: answer[key] for key in asked} == {**asked, "store": False}  # nothing is stored, whatever was asked


def test_it_was_completed_when_it_was_begun_at_the_earliest() -> None:
    assert whole({"created_at": NOW + 5})["completed_at"] == NOW + 5
    assert whole({"status": "incomplete"})["completed_at"] is None


def test_what_may_be_missing_but_not_null_is_missing() -> None:
    tool = {"type": "function", "name": "f", "parameters": None, "strict": None, "description": None, "defer_loading": None}
    custom = {"type": "custom", "name": "g", "description": None}
    form = {"type": "json_schema", "name": "v", "schema": {"type": "string"}, "description": None, "strict": None}
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed", "namespace": None}
    thought: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": None, "status": None}
    part: dict[str, Any] = {"type": "output_text", "text": "x", "annotations": [], "logprobs": None}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part], "phase": None}
    answer = whole(
        {
            "tools": [tool, custom],
            "text": {"format": form, "verbosity": None},
            "reasoning": {"effort": "low", "generate_summary": None, "summary": None},
            "output": [call, thought, message],
        }
    )
    assert answer["tools"] == [{key: tool[key] for key in tool if key != "defer_loading"}, {"type": "custom", "name": "g"}]
    assert answer["text"] == {"format": {**form, "strict": False}}
    assert answer["reasoning"] == {"effort": "low", "summary": None}
    assert [[key for key, value in item.items() if value is None] for item in answer["output"]] == [[], [], []]
    assert answer["output"][2]["content"] == [{**part, "logprobs": []}]


def test_each_event_that_carries_a_response_an_item_or_a_part_is_completed() -> None:
    told = values_of(completing().feed(b"".join(response_events(TEXT, '{"a": 1}'))))
    fresh = values_of(b"".join(response_events(TEXT, '{"a": 1}')))
    assert [value["type"] for value in told] == [value["type"] for value in fresh]
    responses = [value["response"] for value in told if "response" in value]
    assert len(responses) == 3
    for each in responses:
        assert each.keys() >= REQUIRED
    parts = [value["part"] for value in told if "part" in value]
    parts += [part for value in told for part in value.get("item", {}).get("content", [])]
    assert len(parts) == 3
    assert all(part["logprobs"] == [] for part in parts)


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_however_the_stream_comes_it_is_the_same(size: int) -> None:
    raw = b"".join(response_events(TEXT))
    passing, at_once = completing(), completing().feed(raw)
    assert b"".join(passing.feed(raw[at : at + size]) for at in range(0, len(raw), size)) == at_once


def test_pieces_of_the_answer_pass_as_they_are() -> None:
    """They are not even read."""
    for name in ("output_text.delta", "function_call_arguments.delta", "reasoning_text.done", "output_text.done"):
        event = b'event: response.%s\ndata: {"logprobs":null,  "item": "event: response.created" \n\n' % name.encode()
        assert completing().feed(event) == event


@pytest.mark.parametrize(
    ("status", "name"),
    [("completed", "completed"), ("incomplete", "incomplete"), ("failed", "failed"), ("cancelled", "completed"), (None, "completed")],
)
def test_a_stream_ends_with_the_event_of_its_status(status: str | None, name: str) -> None:
    event = named({"type": "response.completed", "sequence_number": 1, "response": {"status": status, "object": "response"}})
    (told,) = values_of(completing().feed(event))
    assert (told["type"], told["sequence_number"]) == (f"response.{name}", 1)


@pytest.mark.parametrize(
    "event",
    [
        b"event: response.completed\ndata: {\n\n",
        b"event: response.completed\ndata: []\n\n",
        b'event: response.completed\ndata: {"type":"response.completed","response":7}\n\n',
        b"event: response.completed\n\n",
        b"event: response.output_item.done\ndata: \xff\n\n",
        b'event: error\ndata: {"type":"error"}\n\n',
    ],
)
def test_what_is_no_event_passes_as_it_is(event: bytes) -> None:
    assert completing().feed(event) == event


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"error":{"message":"x"}}', b"\xff"])
def test_what_is_no_response_passes_as_it_is(raw: bytes) -> None:
    assert completing().whole(raw) == raw


@pytest.mark.parametrize(
    "odd", [{"output": "x"}, {"output": [7]}, {"text": 7}, {"text": {"format": 7}}, {"tools": [None]}, {"created_at": "x"}]
)
def test_strange_forms_stay(odd: dict[str, Any]) -> None:
    answer = json.loads(completing().whole(json.dumps({"object": "response", "status": "completed", **odd}).encode()))
    assert {key: answer[key] for key in odd} == odd
