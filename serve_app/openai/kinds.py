"""The kinds of requests that generate, and where each has what."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

Kind = Literal["chat", "completion", "response", "message"]

PATHS: Final[Mapping[Kind, str]] = {
    "chat": "/v1/chat/completions",
    "completion": "/v1/completions",
    "response": "/v1/responses",
    "message": "/v1/messages",
}
PROMPTS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "chat": ("messages",),
    "completion": ("prompt", "suffix"),
    "response": ("input", "instructions"),
    "message": ("messages", "system"),
}
"""Fields with the prompt's texts, the one that an error names first."""
BESIDE: Final = ("tools", "documents", "chat_template_kwargs")
"""Fields that templates put into a prompt, beside its texts. Completions have no template."""
WITH_CHOICES: Final = frozenset({"chat", "completion"})
"""Kinds whose answers have choices."""

_MEDIA = frozenset({"image", "document", "file", "input_image", "input_file", "input_audio"})
_NO_TEXT = frozenset({"type", "role", "id", "status", "call_id", "tool_use_id", "signature", "cache_control"})


def characters_of(parts: list[Any]) -> int:
    """About how long the texts in parts of a prompt are; 0 where there are media, whose tokens cannot be known beforehand."""
    try:
        return sum(len(text) for text in _texts(parts))
    except _MediaError:
        return 0


def type_of(value: Mapping[str, Any]) -> str:
    """Of a part of a body; empty where that has none."""
    given = value.get("type")
    return given if isinstance(given, str) else ""


class _MediaError(Exception):
    """There is more than text."""


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        if type_of(value) in _MEDIA:
            raise _MediaError
        for key, each in value.items():
            if key not in _NO_TEXT:
                yield from _texts(each)
