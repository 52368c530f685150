"""The texts of a request, checked and masked where they stand.

Of a chat, a response or a message: what its turns and instructions say, part by part, and the arguments of tool calls in it, which are not
masked (they are JSON that programs read: only blocking rules are for them). Of a completion: its prompts, and what is to follow (`suffix`).
"""

from collections.abc import Iterator
from typing import Any

from serve_app.content.base import Matcher, Rule
from serve_app.content.stream import passed
from serve_app.errors import InvalidRequestError
from serve_app.openai.kinds import PROMPTS
from serve_app.openai.requests import Generation

_SAID = frozenset({"content", "text", "refusal", "reasoning", "reasoning_content", "thinking"})
_ARGUMENTS = "arguments"
_SAME_AS = {"input": _ARGUMENTS, "output": "content"}
"""What a tool was given and what it has given, in responses and messages."""


class Checked:
    """The request's fields as they may go on, as far as nothing in them is blocked."""

    def __init__(self, request: Generation, rules: Matcher) -> None:
        self._rules = rules
        self.matched: list[Rule] = []
        self.blocked_by: Rule | None = None
        self.fields = {field: self._checked(request.body[field], "content") for field in _fields(request)}
        """Those that have texts."""

    def _checked(self, value: Any, name: str) -> Any:
        """`name`: of the field that the value is in, or the list that it is in."""
        if self.blocked_by:
            return value
        match value:
            case str() if name in _SAID or name == _ARGUMENTS:
                text, stream = passed(value, self._rules, masks=name != _ARGUMENTS)
                self.matched += stream.matched
                self.blocked_by = stream.blocked_by
                return text
            case list():
                return [self._checked(each, name) for each in value]
            case dict():
                return {key: self._checked(each, _name(key, name)) for key, each in value.items()}
            case _:
                return value


def require_text(request: Generation) -> None:
    """Raises `InvalidRequestError` for a prompt of token ids: nobody here can read it."""
    if request.kind == "completion" and any(isinstance(each, int) for each in _flat(request.body["prompt"])):
        raise InvalidRequestError("The prompt must be text here, not token ids: it is checked.", param="prompt", code="invalid_value")


def prompt_text(request: Generation) -> str:
    """All that a moderation model is to judge."""
    return "\n".join(text for field in _fields(request) for text in _texts(request.body[field], "content"))


def _fields(request: Generation) -> list[str]:
    return [field for field in PROMPTS[request.kind] if field in request.body]


def _texts(value: Any, name: str) -> Iterator[str]:
    match value:
        case str() if name in _SAID or name == _ARGUMENTS:
            yield value
        case list():
            for each in value:
                yield from _texts(each, name)
        case dict():
            for key, each in value.items():
                yield from _texts(each, _name(key, name))


def _name(key: str, above: str) -> str:
    """All that arguments hold is arguments: some write them as an object."""
    return above if above == _ARGUMENTS else _SAME_AS.get(key, key)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _flat(each)
    else:
        yield value
