"""Messages of requests as the JSON bodies that the HTTP routes take; what is in them is checked there."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from serve_app.errors import InvalidRequestError
from serve_app.grpc import llm_service_pb2 as pb

_WHOLE = 2.0**53
"""From there on not every integer is a double."""
_IN_JSON = frozenset({"tools", "response_format"})
"""Fields whose texts are JSON."""
_ALWAYS_TYPED = frozenset({"stream", "stream_options", "encoding_format", "content", "role"})
"""Fields that are not for `extra`, whatever the message: each says elsewhere what they say."""

ToJson = Callable[[bytes], bytes]
"""Raises `InvalidRequestError`."""


def chat(*, stream: bool) -> ToJson:
    return lambda raw: _encoded(_body(_parsed(raw, pb.ChatRequest)) | _framing(stream))


def completion(*, stream: bool) -> ToJson:
    return lambda raw: _encoded(_body(_parsed(raw, pb.CompleteRequest)) | _framing(stream))


def embedding(raw: bytes) -> bytes:
    return _encoded(_body(_parsed(raw, pb.EmbedRequest)) | {"encoding_format": "base64"})  # a fifth of what numbers in JSON take


def _parsed(raw: bytes, kind: Any) -> Message:
    try:
        message: Message = kind.FromString(raw)
    except DecodeError:
        raise InvalidRequestError("The message cannot be read.", code="invalid_message") from None
    return message


def _framing(stream: bool) -> dict[str, Any]:
    return {"stream": True, "stream_options": {"include_usage": True}} if stream else {}


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except RecursionError:
        raise InvalidRequestError("The message is nested too deep.", code="invalid_message") from None


def _body(message: Message) -> dict[str, Any]:
    """What is set of a message, under the names of the JSON."""
    body: dict[str, Any] = {}
    for field, value in message.ListFields():
        name: str = field.name
        if name == "extra":
            body |= _extra(value, message)
        elif name == "tool_calls":
            body[name] = [_tool_call(call) for call in value]
        elif name == "parts":
            body["content"] = [_object(part, name) for part in value]
        elif name == "filters":
            body[name] = _object(value, name)
        elif name == "tool_choice":
            body[name] = _json(value, name) if value.lstrip().startswith("{") else value
        elif name in _IN_JSON:
            body[name] = _json(value, name) if isinstance(value, str) else [_json(each, f"{name}[{at}]") for at, each in enumerate(value)]
        elif isinstance(value, Message):
            body[name] = _body(value)
        elif isinstance(value, str | float | int):  # bool is an int
            body[name] = _finite(value, name)
        else:
            body[name] = [_body(each) if isinstance(each, Message) else each for each in value]
    return body


def _extra(extra: Struct, message: Message) -> dict[str, Any]:
    """Raises `InvalidRequestError` for a field that has a place of its own: one of the two would be left out silently."""
    if typed := {name for name in extra.fields if name in _ALWAYS_TYPED or name in message.DESCRIPTOR.fields_by_name}:
        name = f"extra.{min(typed)}"
        raise InvalidRequestError(f"{name} is not accepted: the message has a place for it.", param=name, code="unsupported_parameter")
    return _object(extra, "extra")


def _tool_call(call: pb.ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _json(text: str, name: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequestError(f"{name} must be JSON.", param=name, code="invalid_json") from None


def _object(struct: Struct, name: str) -> dict[str, Any]:
    return {key: _value(value, name) for key, value in struct.fields.items()}


def _list(values: ListValue, name: str) -> list[Any]:
    return [_value(value, name) for value in values.values]


def _value(value: Value, name: str) -> Any:
    """`name`: of the field of the message that it is in."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return _object(value.struct_value, name)
        case "list_value":
            return _list(value.list_value, name)
        case "number_value":
            number = float(_finite(value.number_value, name))
            return int(number) if number.is_integer() and abs(number) < _WHOLE else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _finite(value: Any, name: str) -> Any:
    """JSON has no other numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequestError(f"{name} must be a finite number.", param=name)
    return value
