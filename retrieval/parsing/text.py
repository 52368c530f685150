"""Bytes to text."""

import codecs
import re

from retrieval.errors import ParseError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NEWLINE = re.compile(r"\r\n?")
_CONTROL = re.compile(r"[\x01-\x08\x0b\x0e-\x1f\x7f]")


def decode(raw: bytes) -> str:
    """UTF-8, or UTF-16 with its mark. Lines end with a line feed. Raises `ParseError` for anything else, and for binary data."""
    try:
        text = raw.decode("utf-16") if raw.startswith(_UTF16) else raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ParseError("the file is neither UTF-8 nor UTF-16 with a byte order mark: save it as UTF-8") from None
    if "\0" in text:
        raise ParseError("unsupported file: its content is binary", "unsupported_file")
    return _CONTROL.sub(" ", _NEWLINE.sub("\n", text))


def require_text(text: str, max_bytes: int) -> str:
    """Raises `ParseError` for a text that is blank or longer than that in UTF-8."""
    if not text.strip():
        raise ParseError("no text: the file has none that could be found", "unsupported_file")
    if len(text) > max_bytes or len(text.encode()) > max_bytes:
        raise too_long(max_bytes)
    return text


def too_long(max_bytes: int) -> ParseError:
    return ParseError(f"the file's text is longer than {max_bytes} bytes: divide it")
