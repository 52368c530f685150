"""Answers of `/v1/responses` and `/v1/messages` in one piece, as they pass rules.

As in a chat, each text is a text of its own, calls are never masked, and of an answer that a rule has ended nobody is to carry out a
call. Such a response is `incomplete` by `content_filter`, such a message has the stop reason `refusal`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from serve_app.content.answers import BLOCKED, OnMatch, answer_text, blank, pass_whole
from serve_app.content.base import Matcher
from serve_app.content.json_text import passed_json
from serve_app.content.stream import passed

REFUSAL = "refusal"
CALLS = frozenset({"function_call", "custom_tool_call", "tool_use"})
_OF_CALLS = frozenset({"name", "arguments", "input"})
Judge = Callable[["Text"], bool]
"""Leaves of a text what may be sent. False: a rule has ended it."""


class Text(NamedTuple):
    """`holder[key]`, and the list in which what follows it in its item is."""

    holder: dict[str, Any]
    key: str
    parts: list[Any]
    at: int

    @property
    def value(self) -> str:
        value = self.holder[self.key]
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()

    @property
    def is_masked(self) -> bool:
        return self.key not in _OF_CALLS

    @property
    def is_json(self) -> bool:
        return self.key == "arguments" or not isinstance(self.holder[self.key], str)


def texts_of(item: dict[str, Any]) -> Iterator[Text]:
    """Of an output item of a response, or a block of a message."""
    for key in ("text", "refusal", "thinking", "name", "arguments", "input"):
        if item.get(key):
            yield Text(item, key, [], 0)
    for field in ("summary", "content"):
        parts: Any = item.get(field)
        for at, part in enumerate(parts if isinstance(parts, list) else ()):
            for key in ("text", "refusal"):
                if part.get(key):
                    yield Text(part, key, parts, at)


def judge_of(rules: Matcher, on_match: OnMatch, changes: list[Text]) -> Judge:
    """`changes` gets those that are another one now."""

    def judge(text: Text) -> bool:
        said, stream = passed_json(text.value, rules) if text.is_json else passed(text.value, rules, masks=text.is_masked)
        for rule in stream.matched:
            on_match(rule)
        if stream.matched:
            changes.append(text)
            text.holder[text.key] = said
        return stream.blocked_by is None

    return judge


def left_of(items: list[dict[str, Any]], judge: Judge) -> list[dict[str, Any]] | None:
    """What may be sent of items of which a rule has ended one. None: none has."""
    for number, item in enumerate(items):
        for text in texts_of(item):
            if not judge(text):
                del text.parts[text.at + 1 :]
                return without_calls(items[: number + 1])
    return None


def without_calls(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for item in items if item.get("type") not in CALLS]


def pass_answer(raw: bytes, rules: Matcher, on_match: OnMatch) -> bytes:
    """An answer of any kind. Raises `msgspec.DecodeError` or `UnicodeDecodeError` for what is none."""
    answer = msgspec.json.decode(raw, type=dict[str, Any])
    if _items_field(answer) is None:
        return pass_whole(raw, rules, on_match)
    changes: list[Text] = []
    pass_items(answer, rules, on_match, changes)
    return msgspec.json.encode(answer) if changes else raw


def pass_items(answer: dict[str, Any], rules: Matcher, on_match: OnMatch, changes: list[Text] | None = None) -> bool:
    """Leaves in a response or a message what may be sent; `changes` gets what is another text now. Whether a rule has ended it."""
    field = _items_field(answer)
    left = left_of(answer.get(field) or [], judge_of(rules, on_match, [] if changes is None else changes)) if field else None
    if left is not None:
        end(answer, left)
    return left is not None


def blank_answer(raw: bytes) -> bytes:
    """An answer of any kind of which nothing may be sent."""
    answer = msgspec.json.decode(raw, type=dict[str, Any])
    if _items_field(answer) is None:
        return blank(raw)
    end(answer, [])
    return msgspec.json.encode(answer)


def text_of_answer(answer: dict[str, Any]) -> str:
    """All that a moderation model is to judge."""
    field = _items_field(answer)
    if field is None:
        return answer_text(answer)
    return "\n".join(text.value for item in answer.get(field) or () for text in texts_of(item))


def end(answer: dict[str, Any], left: list[dict[str, Any]]) -> None:
    """Makes of it an answer that a rule has ended. `left`: what may be sent."""
    if answer.get("type") == "message":
        answer |= {"content": left or [{"type": "text", "text": ""}], "stop_reason": REFUSAL, "stop_sequence": None}
        return
    for item in left[-1:]:
        item["status"] = "incomplete"
    answer |= {"output": left, "status": "incomplete", "incomplete_details": {"reason": BLOCKED}}


def _items_field(answer: dict[str, Any]) -> str | None:
    if answer.get("object") == "response":
        return "output"
    return "content" if answer.get("type") == "message" else None
