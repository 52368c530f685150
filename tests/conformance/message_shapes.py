"""What Anthropic's reference says that messages and the events of their streams look like."""

import json
from typing import Any

import httpx

from tests.conformance.response_shapes import OBJECT, TEXT, WHOLE, by_type, fields, listed, named_events, nullable, one_of
from tests.conformance.shapes import json_body

BLOCK = by_type(
    {
        "text": fields({"text": TEXT}),
        "thinking": fields({"thinking": TEXT, "signature": TEXT}),
        "tool_use": fields({"id": TEXT, "name": TEXT, "input": OBJECT}),
    }
)
STOP_REASON = one_of("end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal")
_CACHED = {"cache_creation_input_tokens": nullable(WHOLE), "cache_read_input_tokens": nullable(WHOLE)}
USAGE = fields({"input_tokens": WHOLE, "output_tokens": WHOLE, **_CACHED})
MESSAGE = fields(
    {
        "id": TEXT,
        "type": one_of("message"),
        "role": one_of("assistant"),
        "model": TEXT,
        "content": listed(BLOCK),
        "stop_reason": nullable(STOP_REASON),
        "stop_sequence": nullable(TEXT),
        "usage": USAGE,
    }
)
_ENDED = fields({"stop_reason": STOP_REASON, "stop_sequence": nullable(TEXT)})
EVENT = by_type(
    {
        "message_start": fields({"message": MESSAGE}),
        "content_block_start": fields({"index": WHOLE, "content_block": BLOCK}),
        "content_block_delta": fields(
            {
                "index": WHOLE,
                "delta": by_type(
                    {
                        "text_delta": fields({"text": TEXT}),
                        "thinking_delta": fields({"thinking": TEXT}),
                        "signature_delta": fields({"signature": TEXT}),
                        "input_json_delta": fields({"partial_json": TEXT}),
                    }
                ),
            }
        ),
        "content_block_stop": fields({"index": WHOLE}),
        "message_delta": fields({"delta": _ENDED, "usage": fields({"output_tokens": WHOLE}, _CACHED)}),
        "message_stop": fields({}),
        "ping": fields({}),
    }
)


def message_answer(answer: httpx.Response) -> dict[str, Any]:
    body = json_body(answer)
    check_ended(body)
    return body


def check_ended(message: dict[str, Any]) -> None:
    MESSAGE(message, "message")
    assert message["content"]
    assert message["stop_reason"]
    assert (message["stop_sequence"] is not None) == (message["stop_reason"] == "stop_sequence")


def text_of(message: dict[str, Any]) -> str:
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def message_events(answer: httpx.Response) -> list[dict[str, Any]]:
    """A stream's events, each in its shape: a start, one block after the other, how it ended, and the stop."""
    events = [event for event in named_events(answer) if event["type"] != "ping"]
    for number, event in enumerate(events):
        EVENT(event, f"event {number}, {event['type']}")
    start, *blocks, delta, stop = events
    assert [start["type"], delta["type"], stop["type"]] == ["message_start", "message_delta", "message_stop"]
    begun = start["message"]
    assert (begun["content"], begun["stop_reason"], begun["stop_sequence"]) == ([], None, None)
    open_at, closed = None, 0
    for event in blocks:
        if event["type"] == "content_block_start":
            assert (open_at, event["index"]) == (None, closed), "a block begins when the one before has stopped"
            open_at = event["index"]
        else:
            assert event["index"] == open_at
        if event["type"] == "content_block_stop":
            open_at, closed = None, closed + 1
    assert open_at is None
    check_ended(joined(events))
    return events


def joined(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that they say."""
    message: dict[str, Any] = dict(events[0]["message"], content=[])
    said = ""
    for event in events[1:]:
        match event["type"]:
            case "content_block_start":
                message["content"].append(dict(event["content_block"]))
                said = ""
            case "content_block_delta" if event["delta"]["type"] == "input_json_delta":
                said += event["delta"]["partial_json"]
                message["content"][-1]["input"] = said
            case "content_block_delta":
                key = event["delta"]["type"].removesuffix("_delta")
                message["content"][-1][key] = message["content"][-1].get(key, "") + event["delta"][key]
            case "content_block_stop" if message["content"][-1]["type"] == "tool_use":
                message["content"][-1]["input"] = json.loads(said)
            case "message_delta":
                message |= {**event["delta"], "usage": {**message["usage"], **event["usage"]}}
    return message


def prompt_tokens(message: dict[str, Any]) -> int:
    """Of all three kinds: `input_tokens` are those that no cache had to do with."""
    usage = message["usage"]
    return int(usage["input_tokens"] + (usage["cache_creation_input_tokens"] or 0) + (usage["cache_read_input_tokens"] or 0))


def anthropic_error(response: httpx.Response, status: int, kind: str) -> str:
    """The message of an error in Anthropic's shape."""
    assert response.status_code == status, f"{response.status_code}: {response.text}"
    assert response.headers["content-type"].split(";")[0] == "application/json"
    assert response.headers["request-id"]
    body = response.json()
    fields({"type": one_of("error"), "error": fields({"type": one_of(kind), "message": TEXT})})(body, "error")
    assert body["error"]["message"]
    return str(body["error"]["message"])
