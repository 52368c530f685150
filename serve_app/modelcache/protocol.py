"""Reads requests of ModelCache's clients. No I/O.

Three generations of servers read bodies differently, and clients of each must find what they know:

- Flask (2023-24) took only a JSON string that contains JSON, FastAPI (2024) that or an object, all since 2025 only an
  object. All of them are read here, and a string inside a string too, because clients differ in nothing else.
- A body that is no JSON at all is HTTP 400 with code 400, as since 2025: FastAPI's 103 and Flask's 101, both HTTP 200, said
  it no better, and a client that tests `errorCode` sees a failure in each.
- JSON that is no request (a list, a string with other text) is 103, as since 2025.
- A field that cannot be read is answered in the shape of its type, as since 2025, so that a client finds the fields that
  it reads: insert 301, remove 401. A query is 103, not 201: the cache did not fail.
- Model names are taken as they are. All generations turned `-` and `.` into `_`, and so gave `gpt-4.1` and `gpt_4_1` one
  cache.
- A request without `scope` has the empty model, which holds nothing; a `scope` without a model is 103, as in all.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import msgspec

from serve_app.json_bounds import has_too_many_values
from serve_app.modelcache import bodies
from serve_app.modelcache.backend import Message
from serve_app.modelcache.bodies import Response
from serve_app.modelcache.keytext import question_of
from serve_app.openai.requests import MAX_DEPTH

MAX_ENCODINGS = 3
"""How often a request may be wrapped in a JSON string."""
MAX_MODEL_CHARS = 1000
MAX_ROWS = 1000
MAX_IDS = 10_000

Row = tuple[list[Message], str]


class Refusal(Exception):  # noqa: N818  it is an answer
    """The request is answered without the cache."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class NotJsonError(ValueError):
    """Neither is what is nested deeper than `MAX_DEPTH`."""


class _UnreadableError(Exception):
    """Names the field and what it must be, never what it is."""


@dataclass(frozen=True, slots=True)
class Head:
    """What all requests have. `fields` is the whole request."""

    type: str
    model: str
    fields: dict[str, Any]

    @property
    def has_model(self) -> bool:
        return bool(self.model.strip())


@dataclass(frozen=True, slots=True)
class Query:
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class Insert:
    """None: a row with a blank question or answer, which is skipped."""

    rows: list[Row | None]


@dataclass(frozen=True, slots=True)
class Delete:
    ids: list[str]


@dataclass(frozen=True, slots=True)
class Truncate: ...


@dataclass(frozen=True, slots=True)
class Register: ...


Request = Query | Insert | Delete | Truncate | Register


def decode(raw: bytes | str) -> Any:
    """The JSON value. Raises `NotJsonError`."""
    if has_too_many_values(raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw):
        raise NotJsonError
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):  # ValueError: text that UTF-8 cannot express, endless integers
        raise NotJsonError from None
    if _deeper(value, MAX_DEPTH):
        raise NotJsonError
    return value


def read_head(payload: object) -> Head:
    """`payload`: bytes are a body as it came, everything else is a JSON value. Raises `Refusal`."""
    fields = _object(payload)
    try:
        model = _model(fields.get("scope"))
    except _UnreadableError as error:
        raise Refusal(bodies.unreadable(str(error))) from None
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in bodies.TYPES:
        raise Refusal(bodies.unknown_type())
    return Head(kind, model, fields)


def read_request(head: Head, blocked: Container[str]) -> Request:
    """`blocked`: models that are neither looked up nor filled. Raises `Refusal`."""
    match head.type:
        case "query":
            return _query(head, blocked)
        case "insert":
            return _insert(head, blocked)
        case "remove":
            return _remove(head.fields)
        case _:
            return Register()


def _query(head: Head, blocked: Container[str]) -> Query:
    if head.model in blocked:
        raise Refusal(bodies.query_blocked(head.model))
    try:
        return Query(_messages(head.fields.get("query"), "query"))
    except _UnreadableError as error:
        raise Refusal(bodies.unreadable(str(error))) from None


def _insert(head: Head, blocked: Container[str]) -> Insert:
    """Blank rows are skipped and the others kept: they can never be hit, and one of them must not cost a client the rest."""
    if head.model in blocked:
        raise Refusal(bodies.insert_blocked(head.model))
    try:
        rows = [_row(row, f"chat_info[{index}]") for index, row in enumerate(_list(head.fields.get("chat_info"), "chat_info", MAX_ROWS))]
    except _UnreadableError as error:
        raise Refusal(bodies.insert_failed(str(error))) from None
    if rows and not any(rows):
        raise Refusal(bodies.insert_failed("Nothing was kept: each row has a blank question or answer."))
    return Insert(rows)


def _remove(fields: dict[str, Any]) -> Delete | Truncate:
    match fields.get("remove_type"):
        case "truncate_by_model":
            return Truncate()
        case "delete_by_id":
            try:
                return Delete([_id(each) for each in _list(fields.get("id_list", []), "id_list", MAX_IDS)])
            except _UnreadableError as error:
                raise Refusal(bodies.remove_failed(str(error))) from None
        case _:
            raise Refusal(bodies.remove_failed())


def _object(payload: object) -> dict[str, Any]:
    if isinstance(payload, bytes):
        try:
            payload = decode(payload)
        except NotJsonError:
            raise Refusal(bodies.bad_request()) from None
    for _ in range(MAX_ENCODINGS):
        if not isinstance(payload, str):
            break
        try:
            payload = decode(payload)
        except NotJsonError:
            break
    if not isinstance(payload, dict) or _deeper(payload, MAX_DEPTH):
        raise Refusal(bodies.unreadable("The request must be a JSON object, or a string that contains one."))
    return payload


def _model(scope: object) -> str:
    if scope is None:
        return ""
    model = scope.get("model") if isinstance(scope, dict) else None
    if not isinstance(model, str):
        raise _UnreadableError("scope.model must be a string.")
    if len(model) > MAX_MODEL_CHARS:
        raise _UnreadableError(f"scope.model must have at most {MAX_MODEL_CHARS} characters.")
    return model


def _row(row: object, at: str) -> Row | None:
    if not isinstance(row, dict):
        raise _UnreadableError(f"{at} must be an object.")
    messages, answer = _messages(row.get("query"), f"{at}.query"), row.get("answer")
    if not isinstance(answer, str):
        raise _UnreadableError(f"{at}.answer must be a string.")
    return None if question_of(messages).blank or not answer.strip() else (messages, answer)


def _messages(value: object, at: str) -> list[Message]:
    messages = _list(value, at)
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise _UnreadableError(f"{at}[{index}] must be an object.")
        if not isinstance(message.get("role"), str | None):
            raise _UnreadableError(f"{at}[{index}].role must be a string.")
        if not _is_text(message.get("content")):
            raise _UnreadableError(f"{at}[{index}].content must be a string or a list of text parts.")
    return messages


def _is_text(content: object) -> bool:
    """Servers before 2025 took messages without content."""
    if isinstance(content, list):
        return all(isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content)
    return content is None or isinstance(content, str)


def _id(value: object) -> str:
    """Numbers, as they were before 2025, name nothing here, but are no error either."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 64:
        return str(value)
    raise _UnreadableError("id_list must hold strings.")


def _list(value: object, at: str, limit: int | None = None) -> list[Any]:
    if not isinstance(value, list):
        raise _UnreadableError(f"{at} must be a list.")
    if limit is not None and len(value) > limit:
        raise _UnreadableError(f"{at} must have at most {limit} items.")
    return value


def _deeper(value: object, levels: int) -> bool:
    """Whether lists and objects are nested in more than so many levels."""
    if not isinstance(value, dict | list):
        return False
    if levels == 0:
        return True
    return any(_deeper(each, levels - 1) for each in (value.values() if isinstance(value, dict) else value))
