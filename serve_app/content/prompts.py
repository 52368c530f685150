"""The texts of a request, checked and masked where they stand.

Of a chat, a response or a message: what its turns and instructions say, part by part, the calls of tools in it, and the tools themselves.
Of a completion: its prompts, and what is to follow (`suffix`).

Programs read calls and tools, so only blocking rules are for them, but for descriptions. Keys are checked as well: they come to the model
with the rest, but for those that JSON schemas have. Of documents that a chat brings all is masked but keys.
"""

from collections.abc import Callable, Iterator
from typing import Any

from serve_app.content.base import Matcher, Rule
from serve_app.content.json_text import meant, passed_json
from serve_app.content.many import MAX_IN_QUESTION, SHORT_CHARS, in_question, is_too_much
from serve_app.content.stream import passed
from serve_app.errors import InvalidRequestError
from serve_app.openai.kinds import BESIDE, PROMPTS
from serve_app.openai.requests import Generation

_DESCRIPTION = "description"
_DOCUMENTS = "documents"
"""What documents are, and all that is in them."""
_MASKED = frozenset({"content", "text", "refusal", "reasoning", "reasoning_content", "thinking", _DESCRIPTION, _DOCUMENTS})
_JSON = "arguments"
_GIVEN = "input"
"""What a call gives to its tool, and all that is in it: also what `arguments` hold, which some write as an object."""
_DEFINED = "tools"
"""What defines a tool, and all that is in it."""
_NAME = "name"
_SAME_AS = {"output": "content"}
"""What a tool has given, in responses."""
_CHECKED = _MASKED | {_JSON, _GIVEN, _DEFINED, _NAME}
# fmt: off
_SCHEMAS = frozenset(
    {
        "type", "function", "custom", "namespace", "name", "description", "parameters", "input_schema", "strict", "format", "definition",
        "syntax", "properties", "required", "items", "enum", "const", "default", "examples", "title", "anyOf", "oneOf", "allOf", "not",
        "$ref", "$defs", "definitions", "additionalProperties", "patternProperties", "minimum", "maximum", "exclusiveMinimum",
        "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "prefixItems",
        "nullable", "object", "array", "string", "number", "integer", "boolean", "null", "grammar", "text", "tools",
    }
)
# fmt: on
"""Keys of tools and JSON schemas, and what their key `type` may say."""

See = Callable[[str, str], str]
"""Told a text and the name of what it is, gives what it is to be."""


class Checked:
    """The request's fields as they may go on, as far as nothing in them is blocked."""

    def __init__(self, request: Generation, rules: Matcher) -> None:
        """Raises `InvalidRequestError` for what takes too long to be masked."""
        self._rules = rules
        self._known: dict[tuple[str, str], tuple[str, list[Rule]]] = {}
        """What became of texts, and of what they are."""
        self.matched: dict[str, tuple[Rule, int]] = {}
        """By name the rules that were acted on, and how often."""
        self.blocked_by: Rule | None = None
        self.field = request.prompt_field
        """What an error names: the prompt, or what stands beside it."""
        self.fields: dict[str, Any] = {}
        """Those that have texts, if a rule may have something to say of one."""
        self._in_question = in_question(_texts(request), rules)
        for field, name in _fields(request) if self._in_question else ():
            self.fields[field] = _seen(request.body[field], name, self._passed)
            if self.blocked_by:
                self.field = field if field in BESIDE else self.field
                return
        if is_too_much(self._in_question):
            message = f"The prompt has more than {MAX_IN_QUESTION} short texts with something that content rules are about."
            raise InvalidRequestError(message, param=self.field, code="invalid_value")

    def _passed(self, text: str, name: str) -> str:
        if self.blocked_by or _read(text, name) not in self._in_question:
            return text
        if (text, name) not in self._known:
            said, stream = passed_json(text, self._rules) if name == _JSON else passed(text, self._rules, masks=name in _MASKED)
            self._known[text, name] = said, stream.matched
            self.blocked_by = stream.blocked_by
        said, matched = self._known[text, name]
        for rule in matched:
            self.matched[rule.name] = rule, self.matched.get(rule.name, (rule, 0))[1] + 1
        return said


def _texts(request: Generation) -> dict[str, None]:
    """As rules see them."""
    texts: dict[str, None] = {}

    def see(text: str, name: str) -> str:
        texts[_read(text, name)] = None
        return text

    for field, name in _fields(request):
        _seen(request.body[field], name, see)
    return texts


def _read(text: str, name: str) -> str:
    return meant(text) if name == _JSON and len(text) <= SHORT_CHARS else text


def require_text(request: Generation) -> None:
    """Raises `InvalidRequestError` for a prompt of token ids: nobody here can read it."""
    if request.kind == "completion" and any(isinstance(each, int) for each in _flat(request.body["prompt"])):
        raise InvalidRequestError("The prompt must be text here, not token ids: it is checked.", param="prompt", code="invalid_value")


def prompt_text(request: Generation) -> str:
    """All that a moderation model is to judge."""
    texts: list[str] = []

    def see(text: str, _: str) -> str:
        texts.append(text)
        return text

    for field, name in _fields(request):
        _seen(request.body[field], name, see)
    return "\n".join(texts)


def _fields(request: Generation) -> Iterator[tuple[str, str]]:
    """Each with the name of what it is."""
    for field in PROMPTS[request.kind]:
        if field in request.body:
            yield field, "content"
    for field in BESIDE if request.kind != "completion" else ():
        if request.body.get(field) is not None:
            yield field, _DOCUMENTS if field == _DOCUMENTS else _DEFINED


def _seen(value: Any, name: str, see: See) -> Any:
    """`name`: of the field that the value is in, or the list that it is in."""
    match value:
        case str() if name in _CHECKED:
            return see(value, name)
        case list():
            return [_seen(each, name, see) for each in value]
        case dict():
            return {key: _seen_at(key, each, name, see) for key, each in value.items()}
        case _:
            return value


def _seen_at(key: str, value: Any, above: str, see: See) -> Any:
    if above in (_JSON, _GIVEN):
        see(key, _GIVEN)
        return _seen(value, _GIVEN, see)
    if above == _DOCUMENTS:
        see(key, _DEFINED)
        return _seen(value, _DOCUMENTS, see)
    if above in (_DEFINED, _DESCRIPTION):
        if key not in _SCHEMAS:
            see(key, _DEFINED)
        is_schemas = key == "type" and isinstance(value, str) and value in _SCHEMAS
        return value if is_schemas else _seen(value, _DESCRIPTION if key == _DESCRIPTION else _DEFINED, see)
    return _seen(value, _SAME_AS.get(key, key), see)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _flat(each)
    else:
        yield value
