"""What a request asks of kept contexts: marks on its messages, as Anthropic has them, or a context that was made before, as Kimi has it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from serve_app.errors import InvalidRequestError

MAX_MARKS = 4
MAX_TTL_S = 7 * 86400
DEFAULT_TTL_S = 300
_TTL = re.compile(r"([0-9]{1,7})([smh])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600}
TAG = r"[A-Za-z][A-Za-z0-9_.-]{0,127}"
_REFERENCE = re.compile(rf"(?:cache_id=(?P<id>[A-Za-z0-9-]{{1,64}})|tag=(?P<tag>{TAG}))(?:;reset_ttl=(?P<ttl>[0-9]{{1,7}}))?\Z")


class Control(msgspec.Struct, forbid_unknown_fields=True):
    """`cache_control` on a part of a message, a message or a tool."""

    type: Literal["ephemeral"]
    ttl: str | int | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a request: its prompt up to there is to be kept, for so long after each use."""

    field: Literal["tools", "system", "messages"]
    message: int
    """Of `messages`, the last one of the beginning, or of which it has the beginning."""
    part: int | None
    """The last part of that message, or of `system`; None: all of it."""
    ttl_s: float
    name: bytes = b""
    """Equal beginnings of prompts have equal names, once they are known (`serve_app.contexts.beginnings`)."""
    has_media: bool = False
    """Before it: such a beginning cannot be kept."""

    def beginning(self, body: dict[str, Any], behind: dict[str, Any]) -> dict[str, Any]:
        """The fields of a request that has what is before the mark, and no more than it needs: `behind`, if there is no message."""
        messages = body["messages"]
        if self.field == "messages":
            last = messages[self.message]
            return {"messages": [*messages[: self.message], last if self.part is None else _cut(last, "content", self.part)]}
        if self.field == "system" and self.part is not None:
            return {**_cut({"system": body["system"]}, "system", self.part), "messages": [behind]}
        return {"messages": [behind]}


def _cut(value: dict[str, Any], field: str, part: int) -> dict[str, Any]:
    return {**value, field: value[field][: part + 1]}


@dataclass(frozen=True, slots=True)
class Reference:
    """A context that the chat begins with."""

    id: str = ""
    tag: str = ""
    """Instead of the id."""
    reset_ttl_s: int | None = None
    """With this request it lives for so long from now on."""


def seconds_of(ttl: str | int | None, param: str) -> float:
    """`300`, `"300s"`, `"5m"` or `"1h"`. Raises `InvalidRequestError`."""
    found = _TTL.match(ttl) if isinstance(ttl, str) else None
    seconds = DEFAULT_TTL_S if ttl is None else ttl if isinstance(ttl, int) else int(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= seconds <= MAX_TTL_S:
        raise InvalidRequestError(
            f'{param} must be a number of seconds, or a time such as "5m" or "1h", of at most {MAX_TTL_S} seconds.',
            param=param,
            code="invalid_value",
        )
    return float(seconds)


def take_marks(body: dict[str, Any]) -> tuple[Mark, ...]:
    """Removes every `cache_control` from the body of a chat, or of Anthropic's messages, in place. Raises `InvalidRequestError`."""
    marks = []
    messages = body["messages"]
    for at, tool in enumerate(body.get("tools") or ()):
        if isinstance(tool, dict) and (ttl_s := _taken(tool, f"tools[{at}]")):
            marks.append(Mark("tools", 0, None, ttl_s))
    marks += [Mark("system", 0, part, ttl_s) for part, ttl_s in _in_parts(body.get("system"), "system")]
    for at, message in enumerate(messages):
        marks += [Mark("messages", at, part, ttl_s) for part, ttl_s in _in_parts(message.get("content"), f"messages[{at}].content")]
        if ttl_s := _taken(message, f"messages[{at}]"):
            marks.append(Mark("messages", at, None, ttl_s))
    if ttl_s := _taken(body, ""):  # of the request: all that it says
        marks.append(Mark("messages", len(messages) - 1, None, ttl_s))
    if len(marks) > MAX_MARKS:
        raise InvalidRequestError(f"At most {MAX_MARKS} places can have cache_control.", param="cache_control", code="invalid_value")
    return tuple(marks)


def _in_parts(parts: Any, path: str) -> Iterator[tuple[int, float]]:
    for number, part in enumerate(parts if isinstance(parts, list) else ()):
        if isinstance(part, dict) and (ttl_s := _taken(part, f"{path}[{number}]")):
            yield number, ttl_s


def _taken(value: dict[str, Any], path: str) -> float | None:
    """Seconds. None: there is none."""
    given = value.pop("cache_control", None)
    if given is None:
        return None
    where = f"{path}.cache_control".removeprefix(".")
    try:
        control = msgspec.convert(given, Control)
    except msgspec.ValidationError:
        message = f'{where} must be {{"type": "ephemeral"}}, with a ttl such as "5m" if wanted.'
        raise InvalidRequestError(message, param=where, code="invalid_value") from None
    return seconds_of(control.ttl, f"{where}.ttl")


def take_reference(body: dict[str, Any]) -> Reference | None:
    """Removes the message with the role `cache` that a chat may begin with. Raises `InvalidRequestError`."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    first = messages[0]
    if not isinstance(first, dict) or first.get("role") != "cache":
        return None
    content = first.get("content")
    found = _REFERENCE.match(content) if isinstance(content, str) else None
    if found is None:
        raise InvalidRequestError(
            "messages[0].content, of the role cache, must be cache_id=ID or tag=NAME, with ;reset_ttl=SECONDS behind it if wanted.",
            param="messages[0].content",
            code="invalid_value",
        )
    if body.get("tools") is not None:
        raise InvalidRequestError("tools come from the context that the chat begins with.", param="tools", code="invalid_value")
    ttl = None if found["ttl"] is None else int(seconds_of(int(found["ttl"]), "reset_ttl"))
    body["messages"] = messages[1:]
    return Reference(found["id"] or "", found["tag"] or "", ttl)


Metadata = Annotated[dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]
