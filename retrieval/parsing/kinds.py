"""What a file is: its content and its name must agree."""

import re
from pathlib import PurePath
from typing import Literal

from retrieval.errors import ParseError

Kind = Literal["text", "markdown", "html", "pdf"]
HEAD_BYTES = 4096
"""Of a file's beginning, enough to say what it is."""

_BY_SUFFIX: dict[str, Kind] = {
    ".pdf": "pdf",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
}
_UNREAD = frozenset(
    {
        *(".7z", ".bz2", ".gz", ".jar", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"),
        *(".bmp", ".gif", ".ico", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
        *(".avi", ".mov", ".mp3", ".mp4", ".ogg", ".wav"),
        *(".doc", ".docx", ".epub", ".key", ".numbers", ".odp", ".ods", ".odt", ".pages", ".ppt", ".pptx", ".rtf", ".xls", ".xlsx"),
        *(".bin", ".class", ".dll", ".exe", ".pyc", ".so", ".sqlite"),
    }
)
_MAGIC = (
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "compressed"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"\x7fELF", "a program"),
    (b"\xd0\xcf\x11\xe0", "an old office document"),
    (b"{\\rtf", "an RTF document"),
    (b"SQLite format 3", "a database"),
)
_READ = "text, source code, Markdown, HTML and PDF are read"
_HTML_BEGINNING = re.compile(rb"(?:\xef\xbb\xbf)?\s*+(?:(?><!--.*?-->)\s*+)*+<(?:!doctype\s+html|html\b)", re.IGNORECASE | re.DOTALL)
"""A comment ends at its first mark, and nothing is tried again: else a row of comments could be divided in exponentially many ways."""


def kind_of(name: str, head: bytes) -> Kind:
    """`head`: the first `HEAD_BYTES`. A name without a known ending leaves it to the content. Raises `ParseError`."""
    suffix = PurePath(name).suffix.lower()
    named = _BY_SUFFIX.get(suffix)
    if suffix in _UNREAD:
        raise ParseError(f"unsupported file: {_READ}, and the file's name says that it is something else", "unsupported_file")
    for magic, what in _MAGIC:
        if head.startswith(magic):
            raise ParseError(f"unsupported file: its content is {what}; {_READ}", "unsupported_file")
    if named == "pdf" and b"%PDF-" not in head[:1024]:
        raise ParseError("the file is not what its name says: its name says PDF, its content does not")
    is_pdf = head.lstrip().startswith(b"%PDF-")
    if is_pdf and suffix and named != "pdf":
        raise ParseError("the file is not what its name says: its content is PDF, its name says otherwise")
    if named or suffix:
        return named or "text"
    return "pdf" if is_pdf else "html" if _HTML_BEGINNING.match(head) else "text"
