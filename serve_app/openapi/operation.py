"""What the document says of one route and method."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]
Content = Mapping[str, Schema]
"""By media type."""
JSON = "application/json"


@dataclass(frozen=True)
class Body:
    """What a request has to send. `schema`: a type that bodies are checked by, or a JSON schema where no type does.

    `partial`: of the type's fields those that are given are changed, so none is required and what is left out has no default.
    """

    schema: Any
    required: bool = True
    partial: bool = False
    media: str = JSON
    about: str = ""


@dataclass(frozen=True)
class Operation:
    """`answer`: what comes with status 200; empty: nothing does."""

    summary: str
    answer: Content
    body: Body | None = None
    query: tuple[type, ...] = ()
    """Types whose fields are the parameters."""
    headers: tuple[str, ...] = ()
    """Names of parameters in `serve_app.openapi.document`."""
    refusals: frozenset[int] = frozenset()
    """Statuses of errors that this route gives besides those of every route."""
    others: Mapping[int, Content] = field(default_factory=dict)
    """By status: what comes in the place of an error."""
    error: str = "Error"
    """The component that its errors look like."""
    about: str = ""


def said(kind: str, *more: str) -> Content:
    """An object that says by its field `object` what it is, and has an `id` or whatever else is named."""
    return {JSON: _object(kind, *more)}


def listed(kind: str) -> Content:
    """A page of such objects."""
    ids = {name: {"type": ["string", "null"]} for name in ("first_id", "last_id")}
    return of_fields(object={"const": "list"}, data={"type": "array", "items": _object(kind, "id")}, **ids, has_more={"type": "boolean"})


def of_fields(**properties: Schema) -> Content:
    """An object that has at least these."""
    return {JSON: {"type": "object", "properties": properties, "required": list(properties)}}


def text(media: str) -> Content:
    return {media: {"type": "string"}}


def _object(kind: str, *more: str) -> Schema:
    named: dict[str, Schema] = {name: {"type": "string"} if name == "id" else {} for name in more}
    return {"type": "object", "properties": {"object": {"const": kind}, **named}, "required": ["object", *more]}
