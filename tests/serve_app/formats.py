"""Answers of `/v1/responses` and `/v1/messages`, whole and a word at a time, as vLLM writes them; and what such answers say."""

from collections.abc import Sequence
from typing import Any

import msgspec

from serve_app.openai.sse import named
from tests.serve_app.fakes import MODEL

RESPONSE_USAGE = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 9,
}
MESSAGE_USAGE = {"input_tokens": 2, "output_tokens": 4, "cache_creation_input_tokens": 1, "cache_read_input_tokens": 2}
HEAD = {"id": "resp_1", "object": "response", "created_at": 1, "model": MODEL, "incomplete_details": None, "tools": []}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look_up", "status": "completed"}


def words(text: str) -> list[str]:
    return text.replace(" ", " \0").split("\0")


def item(text: str, status: str = "completed") -> dict[str, Any]:
    content: list[Any] = [{"type": "output_text", "text": text, "annotations": [], "logprobs": None}] if text else []
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": content}


def response(text: str, *more: dict[str, Any]) -> bytes:
    return msgspec.json.encode({**HEAD, "status": "completed", "output": [item(text), *more], "usage": RESPONSE_USAGE})


def response_events(text: str, arguments: str = "", pieces: Sequence[str] = ()) -> list[bytes]:
    """With a call behind the message, if it is to have arguments. `pieces`: in which these come, instead of words."""
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    begun = {**HEAD, "status": "in_progress", "output": [], "usage": None}
    call = [{**CALL, "arguments": arguments}] if arguments else []
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": None}
    values: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item("", "in_progress")},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": word, "logprobs": []} for word in words(text)),
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item(text)},
    ]
    if arguments:
        place = {"item_id": "fc_1", "output_index": 1}
        values += [
            {"type": "response.output_item.added", "output_index": 1, "item": {**CALL, "arguments": "", "status": "in_progress"}},
            *({"type": "response.function_call_arguments.delta", **place, "delta": piece} for piece in pieces or words(arguments)),
            {"type": "response.function_call_arguments.done", **place, "arguments": arguments, "name": "look_up"},
            {"type": "response.output_item.done", "output_index": 1, "item": call[0]},
        ]
    values.append({"type": "response.completed", "response": msgspec.json.decode(response(text, *call))})
    return [named({**value, "sequence_number": number}) for number, value in enumerate(values)]


def message(text: str, *more: dict[str, Any]) -> bytes:
    head = {"id": "chatcmpl-1", "type": "message", "role": "assistant", "model": MODEL}
    blocks = [{"type": "text", "text": text}, *more]
    return msgspec.json.encode({**head, "content": blocks, "stop_reason": "end_turn", "usage": MESSAGE_USAGE})


def message_events(text: str, arguments: str = "", pieces: Sequence[str] = ()) -> list[bytes]:
    start = {"id": "chatcmpl-1", "type": "message", "role": "assistant", "content": [], "model": MODEL, "usage": {"input_tokens": 5}}
    values: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in words(text)),
        {"type": "content_block_stop", "index": 0},
    ]
    if arguments:
        block = {"type": "tool_use", "id": "call_1", "name": "look_up", "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces or words(arguments)]
        values += [
            {"type": "content_block_start", "index": 1, "content_block": block},
            *({"type": "content_block_delta", "index": 1, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": 1},
        ]
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    values += [{"type": "message_delta", "delta": ended, "usage": MESSAGE_USAGE}, {"type": "message_stop"}]
    return [named(value) for value in values]


def values_of(raw: bytes) -> list[dict[str, Any]]:
    """The events of a stream. Each has its type for a name."""
    values = []
    for each in raw.split(b"\n\n")[:-1]:
        name, _, data = each.partition(b"\ndata: ")
        value = msgspec.json.decode(data)
        assert name == b"event: " + value["type"].encode()
        values.append(value)
    return values


def deltas_of(raw: bytes) -> str:
    """What the deltas of a stream of either kind say."""
    said = [value["delta"] for value in values_of(raw) if value["type"].endswith("delta") and value["type"] != "message_delta"]
    return "".join(delta if isinstance(delta, str) else delta.get("text", delta.get("partial_json", "")) for delta in said)
