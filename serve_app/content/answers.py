"""Answers as they pass rules: whole, or event by event.

Each choice's text is a text of its own, and so are what it says of its reasoning, and the name and arguments of each tool call. In a stream
such a text ends where another one of the choice goes on, so that nothing of it comes late; names, which come in one piece, do not wait.
Calls are for programs to read: masking could change what they do, so only blocking rules are for them.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from serve_app.content.base import Matcher, Rule
from serve_app.content.json_text import JsonStream
from serve_app.content.stream import Stream, passed
from serve_app.openai.sse import DONE, END, WholeEvents, event

BLOCKED = "content_filter"
"""The finish reason of a choice that a rule has ended."""
_THOUGHT = ("reasoning", "reasoning_content", "thinking")
_SAID = frozenset({"content", "text", "refusal", *_THOUGHT})
_ARGUMENTS = "arguments"
_NAME = "name"
_OF_CALLS = frozenset({_NAME, _ARGUMENTS, "input"})
_PREFIX = b"data: "

Path = tuple[str | int, ...]
OnMatch = Callable[[Rule], None]


class _Place(NamedTuple):
    """A text in a choice: `holder[key]`. In lists the path has the index that the part says it has."""

    path: Path
    holder: dict[str, Any]
    key: str


def _places(value: dict[str, Any], path: Path = ()) -> Iterator[_Place]:
    for key, each in value.items():
        if isinstance(each, str) and key in (_OF_CALLS if path else _SAID):
            yield _Place((*path, key), value, key)
        elif key in ("function_call", "function", "custom") and isinstance(each, dict):
            yield from _places(each, (*path, key))
        elif key == "tool_calls" and isinstance(each, list):
            for number, part in enumerate(each):
                yield from _places(part, (*path, key, part.get("index", number)))


def _put(value: dict[str, Any], path: Path, text: str) -> None:
    """Adds to the end of the text at the path."""
    for key in path[:-1]:
        value = _item(value, key)
    value[str(path[-1])] = (value.get(str(path[-1])) or "") + text


def _item(value: Any, key: str | int) -> Any:
    if isinstance(key, str):
        return value.setdefault(key, [] if key == "tool_calls" else {})
    for number, part in enumerate(value):
        if part.get("index", number) == key:
            return part
    value.append({"index": key})
    return value[-1]


class _Choice:
    """One choice's way past the rules."""

    def __init__(self, rules: Matcher, on_match: OnMatch) -> None:
        self._rules = rules
        self._on_match = on_match
        self._path: Path = ()
        self._stream: Stream | None = None
        self.is_blocked = False
        self.is_over = False

    def pass_on(self, choice: dict[str, Any]) -> bool:
        """Leaves in it what may be sent, with what was held back before. Whether that is something else than before."""
        said = next((choice[name] for name in ("delta", "message") if isinstance(choice.get(name), dict)), choice)
        changed = False
        for place in sorted(_places(said), key=lambda place: (place.path != self._path, _rank(place.path))):
            text = place.holder[place.key]
            if text and place.key == _NAME:
                changed |= self._leave(said, place.path)
                self._named(place, text)
            elif text:
                changed |= self._switch(said, place.path)
                place.holder[place.key] = "" if self.is_blocked or self._stream is None else self._fed(self._stream.feed(text))
                changed |= place.holder[place.key] != text
        self.is_over = choice.get("finish_reason") is not None
        if self.is_over and not self.is_blocked:
            changed |= self._end(said)
        if self.is_blocked:
            self._cut_off(choice, said)
        return changed or self.is_blocked

    def _cut_off(self, choice: dict[str, Any], said: dict[str, Any]) -> None:
        choice["finish_reason"] = BLOCKED
        self.is_over = True
        if "stop_reason" in choice:
            choice["stop_reason"] = None
        if said is choice.get("message") and said.get("tool_calls"):
            said["tool_calls"] = []  # nobody is to carry out half a call
        elif said.get("tool_calls"):
            said["tool_calls"] = [call for call in said["tool_calls"] if not _is_nameless(call)]

    def _named(self, place: _Place, name: str) -> None:
        """A name that is blocked is taken away, as all that follows."""
        if not self.is_blocked:
            stream = passed(name, self._rules, masks=False)[1]
            for rule in stream.matched:
                self._on_match(rule)
            self.is_blocked = stream.blocked_by is not None
        if self.is_blocked:
            del place.holder[_NAME]

    def _switch(self, said: dict[str, Any], path: Path) -> bool:
        """To the text at the path. Whether something of the one before was put in."""
        if path == self._path or self.is_blocked:
            return False
        changed = self._end(said)
        self._path = path
        self._stream = JsonStream(self._rules) if path[-1] == _ARGUMENTS else Stream(self._rules, masks=path[-1] not in _OF_CALLS)
        return changed

    def _leave(self, said: dict[str, Any], path: Path) -> bool:
        """For the name at the path, which goes on at once, unless it is of the call whose text it is. Whether something was put in."""
        if path[:-1] == self._path[:-1] or self.is_blocked:
            return False
        changed = self._end(said)
        self._path, self._stream = (), None
        return changed

    def _end(self, said: dict[str, Any]) -> bool:
        rest = self._fed(self._stream.end()) if self._stream else ""
        if rest:
            _put(said, self._path, rest)
        return bool(rest)

    def _fed(self, text: str) -> str:
        """What came of the stream, and what it met is counted."""
        if self._stream:
            for rule in self._stream.matched:
                self._on_match(rule)
            self._stream.matched.clear()
            self.is_blocked = self._stream.blocked_by is not None
        return text


def _is_nameless(call: dict[str, Any]) -> bool:
    """The beginning of a call, without its name."""
    return "id" in call and not any(call.get(kind, {}).get(_NAME) for kind in ("function", "custom"))


def _rank(path: Path) -> int:
    """The order in which a model writes them."""
    return 0 if path[0] in _THOUGHT else 1 if len(path) == 1 else 2


def pass_whole(raw: bytes, rules: Matcher, on_match: OnMatch) -> bytes:
    """An answer in one piece. Raises `msgspec.DecodeError` or `UnicodeDecodeError` for what is none."""
    answer = msgspec.json.decode(raw, type=dict[str, Any])
    return msgspec.json.encode(answer) if pass_choices(answer, rules, on_match) else raw


def pass_choices(answer: dict[str, Any], rules: Matcher, on_match: OnMatch) -> bool:
    """Leaves in a whole answer what may be sent. Whether that is something else than before."""
    changed = [_Choice(rules, on_match).pass_on(choice) for choice in answer.get("choices") or ()]
    return any(changed)


def blank(raw: bytes) -> bytes:
    """An answer in one piece of which nothing may be sent."""
    answer = msgspec.json.decode(raw, type=dict[str, Any])
    for choice in answer.get("choices") or ():
        said = choice.get("message") or choice
        for place in _places(said):
            place.holder[place.key] = ""
        if said.get("tool_calls"):
            said["tool_calls"] = []
        choice["finish_reason"] = BLOCKED
    return msgspec.json.encode(answer)


def answer_text(answer: dict[str, Any]) -> str:
    """All that a moderation model is to judge."""
    said = [choice.get("message") or choice for choice in answer.get("choices") or ()]
    return "\n".join(place.holder[place.key] for each in said for place in _places(each) if place.holder[place.key])


class Events:
    """A stream's events. Those in which nothing is to be changed pass byte for byte."""

    def __init__(self, rules: Matcher, expected: int, on_match: OnMatch) -> None:
        """`expected`: choices that the answer has."""
        self._rules = rules
        self._expected = expected
        self._on_match = on_match
        self._whole = WholeEvents(drop_usage=False)
        self._choices: dict[int, _Choice] = {}
        self.is_over = False
        """Every choice has ended, one at least by a rule: what still comes is of no use."""

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent now, in whole events."""
        passed: list[bytes] = []
        for each in self._whole.feed(chunk).split(END)[:-1]:
            if self.is_over:
                break
            passed.append(self._event(each[len(_PREFIX) :]) if each.startswith(_PREFIX) else each + END)
        return b"".join(passed)

    def _event(self, payload: bytes) -> bytes:
        try:
            chunk = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return DONE if payload == b"[DONE]" else b""  # what cannot be read is not passed on
        if not isinstance(chunk, dict) or not chunk.get("choices"):
            return _PREFIX + payload + END
        changed, passed = False, []
        for choice in chunk["choices"]:
            is_changed, is_sent = self._choice(choice)
            changed |= is_changed
            passed += [choice] if is_sent else []
        ended = [state for state in self._choices.values() if state.is_over]
        self.is_over = len(ended) >= self._expected and any(state.is_blocked for state in ended)
        sent = (event({**chunk, "choices": passed}) if passed else b"") if changed else _PREFIX + payload + END
        return sent + DONE if self.is_over else sent

    def _choice(self, choice: dict[str, Any]) -> tuple[bool, bool]:
        """Whether it is another one now, and whether it is to be sent."""
        state = self._choices.setdefault(choice.get("index", 0), _Choice(self._rules, self._on_match))
        if state.is_blocked:
            return True, False
        if not state.pass_on(choice):
            return False, True
        return True, state.is_over or _says(choice)


def _says(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    return bool(choice.get("text")) if delta is None else any(delta.values())
