"""The streams of `/v1/responses` and `/v1/messages`, as they pass rules. What may still become a match waits, nothing else does."""

from abc import ABC, abstractmethod
from typing import Any, Final

import msgspec

from serve_app.content.answers import Events, OnMatch
from serve_app.content.base import Matcher, Rule
from serve_app.content.items import CALLS, REFUSAL, end, judge_of, left_of, without_calls
from serve_app.content.json_text import JsonStream
from serve_app.content.stream import Stream
from serve_app.openai.requests import Generation
from serve_app.openai.sse import END, WholeEvents, named

_DELTAS: Final = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_DONE: Final = ("text", "refusal", "arguments", "input")


class _RuledEvents(ABC):
    """Events that are JSON objects with a type."""

    def __init__(self, rules: Matcher, on_match: OnMatch) -> None:
        self._rules = rules
        self._on_match = on_match
        self._whole = WholeEvents(drop_usage=False)
        self.is_over = False
        """A rule has ended it: what still comes is of no use."""

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent now, in whole events."""
        sent: list[bytes] = []
        for each in self._whole.feed(chunk).split(END)[:-1]:
            if self.is_over:
                break
            try:
                value = msgspec.json.decode(each.partition(b"data: ")[2], type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # what cannot be read is not passed on
            sent += map(named, self._passed(value))
        return b"".join(sent)

    @abstractmethod
    def _passed(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """What is sent for one event."""

    def _fed(self, stream: Stream, text: str | None) -> str:
        """What may be sent of the stream; None: its end."""
        fed = stream.end() if text is None else stream.feed(text)
        for rule in stream.matched:
            self._on_match(rule)
        stream.matched.clear()
        return fed


class MessageEvents(_RuledEvents):
    """Anthropic's: one block after the other."""

    def __init__(self, rules: Matcher, on_match: OnMatch) -> None:
        super().__init__(rules, on_match)
        self._stream: Stream | None = None
        self._delta: dict[str, Any] = {}
        self._pieces = 0

    def _passed(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        match value.get("type"):
            case "content_block_start":
                return self._begun(value)
            case "content_block_delta" if (key := _DELTAS.get(value["delta"].get("type"))) and self._stream:
                self._pieces += 1
                self._delta = value
                return self._said(self._stream, value, key, value["delta"][key])
            case "content_block_stop" if self._stream:
                stream, self._stream = self._stream, None
                key = _DELTAS.get(self._delta.get("delta", {}).get("type"), "text")
                rest = self._said(stream, self._delta, key, None)
                return rest if self.is_over else [*rest, value]
            case _:
                return [value]

    def _begun(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        block = value["content_block"]
        self._stream, self._delta = JsonStream(self._rules) if block.get("type") in CALLS else Stream(self._rules), {}
        left = left_of([block], judge_of(self._rules, self._on_match, []))
        return [value] if left is None else [{**value, "content_block": {"type": "text", "text": ""}}, *self._cut(value["index"])]

    def _said(self, stream: Stream, like: dict[str, Any], key: str, text: str | None) -> list[dict[str, Any]]:
        fed = self._fed(stream, text)
        sent = [{**like, "delta": {**like["delta"], key: fed}}] if fed else []
        return [*sent, *self._cut(like["index"])] if stream.blocked_by else sent

    def _cut(self, index: int) -> list[dict[str, Any]]:
        """`output_tokens`: of what has come; at least one for each piece."""
        self.is_over = True
        ended = {"stop_reason": REFUSAL, "stop_sequence": None}
        return [
            {"type": "content_block_stop", "index": index},
            {"type": "message_delta", "delta": ended, "usage": {"output_tokens": self._pieces}},
            {"type": "message_stop"},
        ]


class ResponseEvents(_RuledEvents):
    """OpenAI's: what is said in deltas is said again when a part, an item and the response are done."""

    def __init__(self, rules: Matcher, on_match: OnMatch) -> None:
        super().__init__(rules, on_match)
        self._number = 0
        self._response: dict[str, Any] = {}
        self._items: list[dict[str, Any]] = []
        self._item: dict[str, Any] = {}
        self._name = ""
        self._stream: Stream | None = None
        self._told = ""

    def _passed(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        sent = self._checked(value)
        for each in sent:
            each["sequence_number"] = self._number
            self._number += 1
        return sent

    def _checked(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        name, _, what = str(value.get("type")).rpartition(".")
        if what == "delta" and isinstance(value.get("delta"), str):
            return self._delta(name, value, value["delta"])
        if what == "done" and (key := next((key for key in _DONE if isinstance(value.get(key), str)), None)):
            return self._text_done(name, value, key)
        if "part" in value:
            return [value] if self._may_pass([value["part"]]) else self._cut()
        if "item" in value:
            return self._of_item(value, what)
        if "response" in value:
            return self._of_response(value)
        return [value]

    def _delta(self, name: str, value: dict[str, Any], text: str | None) -> list[dict[str, Any]]:
        if self._stream is None or name != self._name:
            self._name, self._told = name, ""
            self._stream = JsonStream(self._rules) if name.endswith("arguments") else Stream(self._rules, masks=not name.endswith("input"))
        fed = self._fed(self._stream, text)
        self._told += fed
        sent = [{**value, "delta": fed}] if fed else []
        return [*sent, *self._cut()] if self._stream.blocked_by else sent

    def _text_done(self, name: str, value: dict[str, Any], key: str) -> list[dict[str, Any]]:
        rest: list[dict[str, Any]] = []
        if self._stream and name == self._name:
            like = {field: each for field, each in value.items() if field not in (key, "name")}
            rest = self._delta(name, {**like, "type": f"{name}.delta"}, None)
            self._stream = None
        if self.is_over:
            return rest
        said = {key if key in ("arguments", "input") else "text": value[key]}
        if not self._may_pass([said]):
            return [*rest, *self._cut()]
        return [*rest, {**value, key: next(iter(said.values()))}]

    def _of_item(self, value: dict[str, Any], what: str) -> list[dict[str, Any]]:
        if not self._may_pass([value["item"]], self._on_match if what == "added" else _not_again):
            return self._cut()
        if what == "done":
            self._items.append(value["item"])
            self._item = {}
        else:
            self._item, self._told = value["item"], ""
        return [value]

    def _of_response(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        self._response = value["response"]
        return [value] if self._may_pass(self._response.get("output") or []) else self._cut()

    def _may_pass(self, items: list[dict[str, Any]], on_match: OnMatch | None = None) -> bool:
        """What has been said already, masked again as it was: that has been counted. False: a rule has ended it."""
        return left_of(items, judge_of(self._rules, on_match or _not_again, [])) is None

    def _cut(self) -> list[dict[str, Any]]:
        self.is_over = True
        left = without_calls([*self._items, *self._begun()])
        response = dict(self._response)
        end(response, left)
        return [{"type": "response.incomplete", "response": response}]

    def _begun(self) -> list[dict[str, Any]]:
        """The item that was being said, as far as that was sent."""
        if not self._item:
            return []
        thought = self._item.get("type") == "reasoning"
        part = {"type": "reasoning_text"} if thought else {"type": "output_text", "annotations": []}
        return [{**self._item, "content": [{**part, "text": self._told}]}]


def _not_again(rule: Rule) -> None: ...


def ruled_events(request: Generation, rules: Matcher, on_match: OnMatch) -> Events | MessageEvents | ResponseEvents:
    """What the events of a streamed answer pass."""
    if request.kind == "message":
        return MessageEvents(rules, on_match)
    return ResponseEvents(rules, on_match) if request.kind == "response" else Events(rules, request.choices, on_match)
