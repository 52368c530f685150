"""Complete answers of responses and messages: read, whole or from a stream, to be kept, and written again."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from serve_app.anthropic.message_fields import complete_message
from serve_app.openai.response_fields import OF_REQUEST, complete, ending
from serve_app.openai.sse import END, named

_OWN: Final = frozenset({"id", "created_at", "completed_at", "store", *OF_REQUEST})
"""Fields that belong to one answer, or to the request that it was given to."""
_NOT_KEPT: Final = frozenset({"kv_transfer_params", "ec_transfer_params", "metrics", "input_messages", "output_messages"})
_DELTAS: Final = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}
_LAST: Final = ("message_stop", "response.completed", "response.incomplete")
ENDS: Final = tuple(f"event: {name}\n".encode() for name in _LAST)
"""How the last event of a stream begins."""


class _Typed(msgspec.Struct):
    type: str


class _Incomplete(msgspec.Struct):
    reason: Literal["max_output_tokens"]


class _Part(msgspec.Struct):
    type: Literal["output_text", "refusal", "reasoning_text", "summary_text"]


class _Item(msgspec.Struct):
    type: Literal["message", "reasoning", "function_call", "custom_tool_call"]
    content: list[_Part] | None = None
    arguments: str = ""
    input: str = ""


class KeptResponse(msgspec.Struct):
    """What a kept response must have to be replayed."""

    object: Literal["response"]
    status: Literal["completed", "incomplete"]
    output: list[_Item]
    usage: dict[str, Any]
    incomplete_details: _Incomplete | None = None


class _Block(msgspec.Struct):
    type: Literal["text", "thinking", "tool_use"]
    text: str = ""
    thinking: str = ""
    signature: str = ""
    input: dict[str, Any] = {}


class KeptMessage(msgspec.Struct):
    type: Literal["message"]
    role: Literal["assistant"]
    content: Annotated[list[_Block], msgspec.Meta(min_length=1)]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    usage: dict[str, Any]


Kept = type[KeptResponse] | type[KeptMessage]


def from_json(raw: bytes, kind: Kept) -> dict[str, Any] | None:
    """The answer in one piece; None when it is not complete."""
    try:
        return _complete(msgspec.json.decode(raw, type=dict[str, Any]), kind)
    except msgspec.DecodeError:
        return None


def from_stream(raw: bytes, kind: Kept) -> dict[str, Any] | None:
    """The answer in a stream's bytes; None when it is not complete."""
    try:
        values = [msgspec.json.decode(each.partition(b"\ndata: ")[2], type=dict[str, Any]) for each in raw.split(END)[:-1]]
        if not values or values[-1].get("type") not in _LAST or "error" in (value.get("type") for value in values):
            return None
        return _complete(_joined(values) if kind is KeptMessage else values[-1].get("response") or {}, kind)
    except msgspec.DecodeError:
        return None


def _complete(answer: dict[str, Any], kind: Kept) -> dict[str, Any] | None:
    kept = {key: value for key, value in answer.items() if key not in _OWN | _NOT_KEPT}
    try:
        msgspec.convert(kept, kind)
    except msgspec.ValidationError:
        return None
    return kept


def _joined(values: list[dict[str, Any]]) -> dict[str, Any]:
    """A message's events. Raises `msgspec.DecodeError` for a tool's input that is no JSON."""
    message: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    inputs: dict[int, str] = {}
    for value in values:
        match value.get("type"):
            case "message_start":
                message = dict(value["message"])
            case "content_block_start":
                blocks[value["index"]] = dict(value["content_block"])
            case "content_block_delta" if value["delta"].get("type") == "input_json_delta":
                inputs[value["index"]] = inputs.get(value["index"], "") + value["delta"]["partial_json"]
            case "content_block_delta":
                _add(blocks[value["index"]], value["delta"])
            case "message_delta":
                message |= {**value["delta"], "usage": {**message.get("usage", {}), **(value.get("usage") or {})}}
    for index, text in inputs.items():
        blocks[index]["input"] = msgspec.json.decode(text, type=dict[str, Any])
    return {**message, "content": [blocks[index] for index in sorted(blocks)] or [{"type": "text", "text": ""}]}


def _add(block: dict[str, Any], delta: dict[str, Any]) -> None:
    for key in ("text", "thinking", "signature"):
        if key in delta:
            block[key] = block.get(key, "") + delta[key]


def replayed(raw: bytes, kind: Kept, own: Mapping[str, Any], asked: Mapping[str, Any], *, stream: bool) -> bytes:
    """A kept answer to a request with the body `asked`, with `own` id and time.

    Raises `msgspec.DecodeError` for one that was damaged, or is of another kind.
    """
    msgspec.json.decode(raw, type=kind)
    answer = {**own, **msgspec.json.decode(raw)}
    answer = complete(answer, asked, answer["created_at"]) if kind is KeptResponse else complete_message(answer)
    if not stream:
        return msgspec.json.encode(answer)
    values = _message_events(answer) if kind is KeptMessage else _response_events(answer)
    return b"".join(map(named, values))


def _message_events(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**answer, "content": [], "stop_reason": None, "stop_sequence": None, "usage": {**answer["usage"], "output_tokens": 0}}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(answer["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": _empty(block)}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {"stop_reason": answer["stop_reason"], "stop_sequence": answer.get("stop_sequence")}
    yield {"type": "message_delta", "delta": ended, "usage": answer["usage"]}
    yield {"type": "message_stop"}


def _empty(block: dict[str, Any]) -> dict[str, Any]:
    if block["type"] == "tool_use":
        return {**block, "input": {}}
    return {**block, _DELTAS[block["type"]][1]: "", **({"signature": ""} if "signature" in block else {})}


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "tool_use":
        yield {"type": "input_json_delta", "partial_json": msgspec.json.encode(block.get("input") or {}).decode()}
        return
    name, key = _DELTAS[block["type"]]
    yield {"type": name, key: block.get(key, "")}
    if block.get("signature"):
        yield {"type": "signature_delta", "signature": block["signature"]}


def _response_events(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for number, value in enumerate(_unnumbered(answer)):
        yield {**value, "sequence_number": number}


def _unnumbered(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**answer, "status": "in_progress", "incomplete_details": None, "completed_at": None, "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(answer["output"]):
        yield from _item_events(item, index)
    yield {"type": ending(answer), "response": answer}


def _item_events(item: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    said = {"function_call": ("arguments", "function_call_arguments"), "custom_tool_call": ("input", "custom_tool_call_input")}
    key, name = said.get(item["type"], ("content", ""))
    empty: Any = "" if name else []
    yield {"type": "response.output_item.added", "output_index": index, "item": {**item, "status": "in_progress", key: empty}}
    place = {"item_id": item.get("id", ""), "output_index": index}
    if name:
        yield {"type": f"response.{name}.delta", **place, "delta": item.get(key, "")}
        called = {"name": item.get("name")} if key == "arguments" else {}
        yield {"type": f"response.{name}.done", **place, key: item.get(key, ""), **called}
    for at, part in enumerate(item.get("content") or ()):
        yield from _part_events(part, {**place, "content_index": at})
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _part_events(part: dict[str, Any], place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    key = "refusal" if part["type"] == "refusal" else "text"
    more = {"logprobs": part.get("logprobs") or []} if part["type"] == "output_text" else {}
    yield {"type": "response.content_part.added", **place, "part": {**part, key: ""}}
    yield {"type": f"response.{part['type']}.delta", **place, "delta": part.get(key, ""), **more}
    yield {"type": f"response.{part['type']}.done", **place, key: part.get(key, ""), **more}
    yield {"type": "response.content_part.done", **place, "part": part}
