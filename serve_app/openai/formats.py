"""What differs between the kinds of requests: usage, what is kept of answers and how it is replayed, ends of streams, prompts' lengths."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from serve_app.anthropic import errors as anthropic
from serve_app.anthropic.message_fields import CompletingMessage
from serve_app.errors import ApiError
from serve_app.openai import answers, kept, sse
from serve_app.openai.completing import Completing
from serve_app.openai.kinds import WITH_CHOICES, Kind
from serve_app.openai.replay import ID_PREFIXES, fill, render
from serve_app.openai.requests import Generation
from serve_app.openai.response_fields import CompletingResponse


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
    if kind in WITH_CHOICES:
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


KEPT: Final[Mapping[Kind, kept.Kept]] = {"response": kept.KeptResponse, "message": kept.KeptMessage}
Parse = Callable[[bytes], dict[str, Any] | None]


def from_json(kind: Kind) -> Parse:
    """What makes of an answer in one piece what is kept; None: it is not complete."""
    return answers.from_json if kind in WITH_CHOICES else partial(kept.from_json, kind=KEPT[kind])


def from_stream(kind: Kind) -> Parse:
    """The same for a stream's bytes."""
    return answers.from_stream if kind in WITH_CHOICES else partial(kept.from_stream, kind=KEPT[kind])


def replayed(request: Generation, raw: bytes, request_id: str, created: int) -> bytes:
    """A kept answer, as it was asked for. Raises `msgspec.DecodeError` for one that was damaged, or is of another kind."""
    response_id = ID_PREFIXES[request.kind] + request_id
    if request.kind in WITH_CHOICES:
        return fill(render(raw, request.kind, stream=request.stream, include_usage=request.include_usage), response_id, created)
    own = {"id": response_id, **({"created_at": created} if request.kind == "response" else {})}
    return kept.replayed(raw, KEPT[request.kind], own, request.body, stream=request.stream)


def completing_of(request: Generation) -> Completing | None:
    """What engines' answers pass before they are kept and sent. None: nothing is left out of them."""
    if request.kind == "response":
        return CompletingResponse(request.body)
    return CompletingMessage() if request.kind == "message" else None


class _NamedCopy(sse.StreamCopy):
    """Of a stream whose last event has a name."""

    def feed(self, chunk: bytes) -> bool:
        super().feed(chunk)
        raw = self._raw
        return raw.endswith(sse.END) and any(raw.startswith(end, raw.rfind(sse.END, 0, -1) + len(sse.END)) for end in kept.ENDS)


def copy_of(request: Generation, limit: int) -> sse.StreamCopy:
    """Of a stream that is to be kept, up to `limit` bytes."""
    return sse.StreamCopy(limit) if request.kind in WITH_CHOICES else _NamedCopy(limit)


def events_of(request: Generation) -> sse.WholeEvents | NamedEvents:
    """What a stream's events pass."""
    if request.kind not in WITH_CHOICES:
        return NamedEvents(request.kind)
    return sse.WholeEvents(drop_usage=not request.include_usage, null_usage=request.include_usage)


def broken_off(request: Generation, error: ApiError, events: sse.WholeEvents | NamedEvents) -> bytes:
    """The last event of a stream that ended too soon."""
    if request.kind == "message":
        return sse.named(anthropic.body_of(error))
    if isinstance(events, NamedEvents):
        told = {"code": error.code or error.type, "message": error.message, "param": error.param}
        return sse.named({"type": "error", "sequence_number": events.passed, **told})
    return sse.event(error.body())
