"""Reads a `multipart/form-data` body as it comes: short fields, and one file, whose bytes are never held together."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app.errors import InvalidRequestError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks  # it is there for type checkers only

MAX_FIELD_BYTES = 1024
MAX_PARTS = 16
MAX_OVERHEAD_BYTES = 64 * 1024
"""Of a body, besides its file."""


class FormField(NamedTuple):
    name: str
    value: str


class FileStart(NamedTuple):
    """What follows as bytes, up to the next field or the end, is of this file."""

    field: str
    filename: str


Event = FormField | FileStart | bytes


async def read_form(content_type: str | None, pieces: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """The form's parts in their order. Raises `InvalidRequestError` for a body that is no form, and what `pieces` raises."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequestError("The body must be multipart/form-data, with a file and a purpose.", code="invalid_content_type")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        async for piece in pieces:
            parser.write(piece)
            for event in parts.take():
                yield event
        parser.finalize()
    except FormParserError:
        raise _malformed() from None
    if not parts.is_complete:
        raise _malformed()


class _Parts:
    """Turns the parser's callbacks into events."""

    def __init__(self) -> None:
        self.is_complete = False
        self._events: list[Event] = []
        self._count = 0
        self._header = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._field: str | None = None
        self._text = b""

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _begin(self) -> None:
        self._count += 1
        if self._count > MAX_PARTS:
            raise InvalidRequestError(f"The form has more than {MAX_PARTS} parts.", code="invalid_value")
        self._headers, self._field, self._text = {}, None, b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            self._events.append(FileStart(name, options[b"filename"].decode("utf-8", "replace")))
        else:
            self._field = name

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._events.append(bytes(data[start:end]))
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            raise InvalidRequestError(f"A field of the form has more than {MAX_FIELD_BYTES} bytes.", code="invalid_value")

    def _end(self) -> None:
        if self._field is not None:
            self._events.append(FormField(self._field, self._text.decode("utf-8", "replace")))

    def _finish(self) -> None:
        self.is_complete = True


def _malformed() -> InvalidRequestError:
    return InvalidRequestError("The body is not a complete form.", code="invalid_form")
