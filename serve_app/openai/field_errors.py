"""What a client is told of a field that its type does not allow: the field, and what is allowed, never what it sent."""

import re
from collections.abc import Callable
from typing import Any

from msgspec import inspect

from retrieval.wording import sentence, unknown_field
from serve_app.errors import InvalidRequestError

_AT = re.compile(r" - at `\$([^`]*)`$")
_INDEX = re.compile(r"\[.*\]")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")
_LIMIT = re.compile(r"Expected `(\w+)` (of length )?(>=|<=|>|<) ([\d.e+-]+)")
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_LENGTHS = {"str": "characters", "array": "items", "object": "fields"}


def field_error(text: str, kind: Any) -> InvalidRequestError:
    """Turns msgspec's message into ours: it may quote values where it speaks of enumerations and unknown fields."""
    at = _AT.search(text)
    path = at.group(1).lstrip(".").replace("[...]", "") if at else ""
    message = _AT.sub("", text)
    if missing := _MISSING.match(message):
        path = f"{path}.{missing.group(1)}".lstrip(".")
        return InvalidRequestError(f"{path} is required.", param=path, code="missing_required_parameter")
    if message.startswith("Invalid enum value"):
        allowed = _names(kind, path, _values)
        message = f"{path} is not an allowed value" + (f"; allowed: {', '.join(allowed)}" if allowed else "")
    elif message.startswith("Object contains unknown field"):
        name = _UNKNOWN.fullmatch(message)
        place, message = unknown_field(path, name.group(1) if name else "", _names(kind, path, _fields))
        return InvalidRequestError(sentence(message, ""), param=place or None, code="invalid_value")
    elif limit := _LIMIT.fullmatch(message):
        message = f"{path} {_limited(*limit.groups())}"
    return InvalidRequestError(sentence(message, path), param=path or None, code="invalid_value")


def _limited(kind: str, of_length: str | None, bound: str, limit: str) -> str:
    limit = limit.removesuffix(".0")
    if not of_length:
        return f"must be {_BOUNDS[bound]} {limit}"
    return f"must have {_BOUNDS[bound]} {limit} {_LENGTHS[kind].removesuffix('s' if limit == '1' else '')}"


def _names(kind: Any, path: str, names: Callable[[inspect.Type], list[str]]) -> list[str]:
    """The values that a field takes, or the fields that it has: of the type at `path`, a path of msgspec's, below `kind`."""
    types = [inspect.type_info(kind)]
    for name in (_INDEX.sub("", part) for part in path.split(".") if part):
        types = [field.type for each in _plain(types) for field in getattr(each, "fields", ()) if field.encode_name == name]
    return [name for each in _plain(types) for name in names(each)]


def _plain(types: list[inspect.Type]) -> list[inspect.Type]:
    """Choices and lists taken apart."""
    plain: list[inspect.Type] = []
    for each in types:
        match each:
            case inspect.UnionType():
                plain += _plain(list(each.types))
            case inspect.ListType():
                plain += _plain([each.item_type])
            case _:
                plain.append(each)
    return plain


def _values(kind: inspect.Type) -> list[str]:
    return [str(value) for value in kind.values] if isinstance(kind, inspect.LiteralType) else []


def _fields(kind: inspect.Type) -> list[str]:
    return [field.encode_name for field in kind.fields] if isinstance(kind, inspect.StructType) else []
