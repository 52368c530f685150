"""What the relay reads of answers, how a prompt's length is asked for, and how a stream ends that broke off, by the kind of the request."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from serve_app.anthropic import errors as anthropic
from serve_app.errors import ApiError
from serve_app.openai import sse
from serve_app.openai.kinds import REPLAYED, Kind
from serve_app.openai.requests import Generation


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _ResponseUsage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _Details | None = None


class _MessageUsage(msgspec.Struct):
    """Anthropic's `input_tokens` are those that were in no cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Response(msgspec.Struct):
    usage: _ResponseUsage | None = None


class _LastResponse(msgspec.Struct):
    response: _Response | None = None


class _Message(msgspec.Struct):
    usage: _MessageUsage | None = None


def usage_of(kind: Kind, raw: bytes) -> sse.Usage | None:
    """Of an answer in one piece."""
    if kind in REPLAYED:
        return sse.usage_of(raw)
    try:
        return _of_message(msgspec.json.decode(raw, type=_Message)) if kind == "message" else _of_response(_decode_response(raw))
    except msgspec.DecodeError:
        return None


_decode_response = msgspec.json.Decoder(_Response).decode


def _of_response(response: _Response | None) -> sse.Usage | None:
    usage = response.usage if response else None
    if usage is None:
        return None
    cached = usage.input_tokens_details.cached_tokens if usage.input_tokens_details else None
    return _usage(usage.input_tokens, usage.output_tokens, cached)


def _of_message(message: _Message) -> sse.Usage | None:
    usage = message.usage
    if usage is None:
        return None
    cached = usage.cache_read_input_tokens
    return _usage(usage.input_tokens + (cached or 0) + (usage.cache_creation_input_tokens or 0), usage.output_tokens, cached)


def _usage(prompt: int, answer: int, cached: int | None) -> sse.Usage:
    details = {"prompt_tokens_details": {"cached_tokens": cached}} if cached is not None else {}
    return msgspec.convert({"prompt_tokens": prompt, "completion_tokens": answer, **details}, sse.Usage)


class _Tokenized(msgspec.Struct):
    count: int


class _Counted(msgspec.Struct):
    input_tokens: int


class Counting(NamedTuple):
    """How an engine is asked for the length of a prompt. `tokens` raises `msgspec.DecodeError` for an answer that does not say it."""

    path: str
    body: dict[str, Any]
    tokens: Callable[[bytes], int]


_COUNTED_OF_MESSAGES: Final[tuple[str, ...]] = ("model", "messages", "system", "tools", "tool_choice", "thinking")


def counting(request: Generation) -> Counting | None:
    """None: engines cannot be asked."""
    if request.kind == "response":
        return None
    if request.kind == "message":
        body = {key: request.body[key] for key in _COUNTED_OF_MESSAGES if key in request.body}
        return Counting("/v1/messages/count_tokens", body, lambda raw: msgspec.json.decode(raw, type=_Counted).input_tokens)
    body = {key: request.body[key] for key in ("model", request.prompt_field)}
    return Counting("/tokenize", body, lambda raw: msgspec.json.decode(raw, type=_Tokenized).count)


class NamedEvents:
    """Passes events that have names, each as soon as it is complete, and reads the usage in the last ones."""

    def __init__(self, kind: Kind) -> None:
        self._last = _LAST[kind]
        self._whole = sse.WholeEvents(drop_usage=False)
        self.passed = 0
        """Events so far."""
        self.usage: sse.Usage | None = None

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent on now."""
        whole = self._whole.feed(chunk)
        self.passed += whole.count(sse.END)
        if any(name in whole for name in self._last):
            for each in whole.split(sse.END)[:-1]:
                self._read(each)
        return whole

    def _read(self, each: bytes) -> None:
        name, _, data = each.partition(b"\ndata: ")
        read = self._last.get(name)
        if read is None:
            return
        try:
            self.usage = read(data) or self.usage
        except msgspec.DecodeError:  # not what it is called: the client may make of it what it can
            return


def _last_response(data: bytes) -> sse.Usage | None:
    return _of_response(msgspec.json.decode(data, type=_LastResponse).response)


def _last_message(data: bytes) -> sse.Usage | None:
    return _of_message(msgspec.json.decode(data, type=_Message))


_LAST: Final[Mapping[Kind, Mapping[bytes, Callable[[bytes], sse.Usage | None]]]] = {
    "response": {b"event: response.completed": _last_response, b"event: response.incomplete": _last_response},
    "message": {b"event: message_delta": _last_message},
}


def events_of(request: Generation) -> sse.WholeEvents | NamedEvents:
    """What a stream's events pass."""
    return sse.WholeEvents(drop_usage=not request.include_usage) if request.kind in REPLAYED else NamedEvents(request.kind)


def named(value: Mapping[str, Any]) -> bytes:
    """An event that has its type for a name."""
    return b"event: %s\ndata: %s\n\n" % (value["type"].encode(), msgspec.json.encode(value))


def broken_off(request: Generation, error: ApiError, events: sse.WholeEvents | NamedEvents) -> bytes:
    """The last event of a stream that ended too soon."""
    if request.kind == "message":
        return named(anthropic.body_of(error))
    if isinstance(events, NamedEvents):
        told = {"code": error.code or error.type, "message": error.message, "param": error.param}
        return named({"type": "error", "sequence_number": events.passed, **told})
    return sse.event(error.body())
