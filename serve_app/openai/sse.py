"""Server-sent events, as OpenAI uses them."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """What an engine counted of one request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that were in the prefix cache."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None


class _WithUsage(msgspec.Struct):
    usage: Usage | None = None


_decode_usage = msgspec.json.Decoder(_WithUsage).decode


def usage_of(raw: bytes) -> Usage | None:
    """Of an answer in one piece, or of a stream's last event."""
    try:
        return _decode_usage(raw).usage
    except msgspec.DecodeError:
        return None


DONE = b"data: [DONE]\n\n"
END = b"\n\n"
_USAGE_ONLY = b'"choices":[]'
_USAGE = b'"usage":'
"""In a text, its quotes would be escaped."""
_NULL_USAGE = b',"usage":null}'


def event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + END


def named(value: Mapping[str, Any]) -> bytes:
    """An event that has its type for a name."""
    return b"event: %s\ndata: %s\n\n" % (value["type"].encode(), msgspec.json.encode(value))


def payloads(raw: bytes) -> Iterator[bytes]:
    """The data of each complete event."""
    for each in raw.split(END):
        if each.startswith(b"data: "):
            yield each[len(b"data: ") :]


class WholeEvents:
    """Passes events on unchanged, each as soon as it is complete, so that a stream that breaks off ends between two.

    With `drop_usage`, for clients that did not ask for it, the event that carries only the usage is removed: the engine is
    always asked for it, because a kept answer must know its usage. With `null_usage`, for those that did, all other events have a null.
    """

    def __init__(self, drop_usage: bool = True, null_usage: bool = False) -> None:
        self._drop_usage = drop_usage
        self._null_usage = null_usage
        self._rest = b""
        self.usage: Usage | None = None
        """What the stream has said of it."""

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent on now."""
        data = self._rest + chunk
        end = data.rfind(END)
        if end < 0:
            self._rest = data
            return b""
        whole, self._rest = data[: end + len(END)], data[end + len(END) :]
        if self._null_usage:
            whole = b"".join(_with_usage(each) + END for each in whole.split(END)[:-1])
        if _USAGE_ONLY not in whole:
            return whole
        return b"".join(each + END for each in whole.split(END)[:-1] if not self._is_dropped(each))

    def _is_dropped(self, each: bytes) -> bool:
        if not _is_usage_only(each):
            return False
        self.usage = usage_of(each[len(b"data: ") :])
        return self._drop_usage


class StreamCopy:
    """A copy of a stream that gives up past `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._raw = bytearray()
        self._kept = True

    def feed(self, chunk: bytes) -> bool:
        """Whether the stream is complete now, and the copy has all of it."""
        self._kept = self._kept and len(self._raw) + len(chunk) <= self._limit
        if not self._kept:
            self._raw.clear()
            return False
        self._raw += chunk
        return self._raw.endswith(DONE)

    @property
    def raw(self) -> bytes:
        return bytes(self._raw)


def _with_usage(raw: bytes) -> bytes:
    """A chunk that says nothing of the usage with a null; errors, and what is no object, as they are."""
    if _USAGE in raw or not raw.startswith(b'data: {"') or raw.startswith(b'data: {"error"') or not raw.endswith(b"}"):
        return raw
    return raw[:-1] + _NULL_USAGE


def _is_usage_only(raw: bytes) -> bool:
    """Text of an answer may contain the same characters: only the parsed event can tell."""
    if _USAGE_ONLY not in raw or not raw.startswith(b"data: {"):
        return False
    try:
        value = msgspec.json.decode(raw[len(b"data: ") :])
    except msgspec.DecodeError:
        return False
    return value.get("choices") == [] and value.get("usage") is not None
