"""Messages and events as vLLM writes them, with all that Anthropic's reference requires."""

import json
from typing import Any

import pytest

from serve_app.anthropic.message_fields import CompletingMessage, complete_message
from serve_app.openai.sse import named
from tests.serve_app.fakes import TEXT
from tests.serve_app.formats import message, message_events, values_of

CACHED = ("cache_creation_input_tokens", "cache_read_input_tokens")


def test_what_is_null_is_there() -> None:
    whole = complete_message({"type": "message", "usage": {"input_tokens": 1, "cache_read_input_tokens": 3}})
    assert (whole["stop_reason"], whole["stop_sequence"]) == (None, None)
    assert whole["usage"] == {"input_tokens": 1, "cache_read_input_tokens": 3, "cache_creation_input_tokens": None}
    assert complete_message({"stop_reason": "stop_sequence", "stop_sequence": "x"}) == {
        "stop_reason": "stop_sequence",
        "stop_sequence": "x",
    }


def test_a_whole_message_is_completed() -> None:
    told = json.loads(CompletingMessage().whole(message(TEXT)))
    assert told == {**json.loads(message(TEXT)), "stop_sequence": None}


@pytest.mark.parametrize("size", [1, 9, 100_000])
def test_a_streams_start_is_completed_and_the_rest_passes_as_it_is(size: int) -> None:
    raw, passing = b"".join(message_events(TEXT, '{"a": 1}')), CompletingMessage()
    told = b"".join(passing.feed(raw[at : at + size]) for at in range(0, len(raw), size))
    start, *rest = values_of(told)
    assert start["message"].keys() >= {"stop_reason", "stop_sequence"}
    assert [start["message"]["usage"][key] for key in CACHED] == [None, None]
    assert told.partition(b"\n\n")[2] == raw.partition(b"\n\n")[2]
    assert rest


def test_a_thought_begins_with_an_empty_signature() -> None:
    block: dict[str, Any] = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    (told,) = values_of(CompletingMessage().feed(named(block)))
    assert told["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}


@pytest.mark.parametrize("raw", [b"", b"{", b'{"type":"error","error":{}}', b"[]", b'{"type":"message","usage":7}'])
def test_what_is_no_message_passes(raw: bytes) -> None:
    told = CompletingMessage().whole(raw)
    assert told == raw or json.loads(told) == {**json.loads(raw), "stop_reason": None, "stop_sequence": None}
