"""Requests of Anthropic's messages API, checked."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from serve_app.contexts.asked import take_marks
from serve_app.errors import InvalidRequestError
from serve_app.openai.kinds import type_of
from serve_app.openai.requests import CacheOptions, Count, Generation, check, parse_object

Content = str | list[dict[str, Any]]
_BLOCKS: Final = frozenset({"text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking"})
_NOT_HERE: Final = ("mcp_servers", "container", "retrieval")
"""What an engine would leave out without a word."""


class Turn(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: Content


class _Prompt(msgspec.Struct, kw_only=True):
    model: str
    messages: Annotated[list[Turn], Meta(min_length=1)]
    system: Content | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None


class MessageRequest(_Prompt, kw_only=True):
    """What of it the ingress needs, or must refuse."""

    max_tokens: Count
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    stop_sequences: Annotated[list[str], Meta(max_length=16)] | None = None
    metadata: dict[str, Any] | None = None
    priority: Annotated[int, Meta(ge=-1000, le=1000)] | None = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    cache: CacheOptions | None = None


class CountRequest(_Prompt, kw_only=True):
    """Of a prompt's tokens."""


def parse_message(body: bytes) -> Generation:
    """Raises `InvalidRequestError`."""
    value = _object(body)
    request = check(value, MessageRequest)
    _refuse_unknown(request)
    marks = take_marks(value) if b"cache_control" in body else ()
    return Generation(
        kind="message",
        body=value,
        model=request.model,
        stream=bool(request.stream),
        include_usage=True,
        cache=request.cache or CacheOptions(),
        retrieval=None,
        max_tokens=request.max_tokens,
        priority=request.priority or 0,
        marks=marks,
    )


def parse_count(body: bytes) -> tuple[str, dict[str, Any]]:
    """The model whose tokens are counted, and the request. Raises `InvalidRequestError`."""
    value = _object(body)
    request = check(value, CountRequest)
    _refuse_unknown(request)
    return request.model, value


def _object(body: bytes) -> dict[str, Any]:
    value = {key: each for key, each in parse_object(body).items() if each is not None}
    for field in _NOT_HERE:
        if value.get(field):
            raise InvalidRequestError(f"{field} is not available here.", param=field, code="unsupported_parameter")
    return value


def _refuse_unknown(request: _Prompt) -> None:
    for at, tool in enumerate(request.tools or ()):
        if tool.get("type", "custom") not in ("custom", None):
            where = f"tools[{at}].type"
            message = f"{where}: only tools that the client describes and carries out itself are accepted (type custom)."
            raise InvalidRequestError(message, param=where, code="unsupported_parameter")
    for number, turn in enumerate(request.messages):
        _refuse_blocks(turn.content, f"messages[{number}].content")
    _refuse_blocks(request.system or "", "system")


def _refuse_blocks(content: Content, place: str) -> None:
    for at, block in enumerate(_listed(content)):
        where = f"{place}[{at}]"
        if type_of(block) not in _BLOCKS:
            message = f"{where}.type is not an allowed value; allowed: {', '.join(sorted(_BLOCKS))}."
            raise InvalidRequestError(message, param=f"{where}.type", code="invalid_value")


def _listed(content: Content) -> Sequence[dict[str, Any]]:
    return () if isinstance(content, str) else content
