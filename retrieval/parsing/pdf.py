"""PDF: the text of its pages, in order."""

from pathlib import Path

from pypdf import PdfReader
from pypdf.errors import PyPdfError

from retrieval.errors import ParseError
from retrieval.parsing.text import too_long


def read_pdf(path: Path, max_pages: int, max_bytes: int) -> str:
    """With a form feed between pages. Raises `ParseError`."""
    try:
        return _read(path, max_pages, max_bytes)
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, NotImplementedError, OSError):
        raise ParseError("the PDF is damaged") from None  # the library raises whatever a damaged file leads it to


def _read(path: Path, max_pages: int, max_bytes: int) -> str:
    reader = PdfReader(path)
    if reader.is_encrypted:
        raise ParseError("the PDF is encrypted: save it without a password", "unsupported_file")
    if len(reader.pages) > max_pages:
        raise ParseError(f"the PDF has more than {max_pages} pages: divide it")
    pages: list[str] = []
    size = 0
    for page in reader.pages:
        text = page.extract_text().encode("utf-8", "replace").decode().replace("\0", " ")
        size += len(text)
        if size > max_bytes:
            raise too_long(max_bytes)
        pages.append(text)
    if not any(page.strip() for page in pages):
        raise ParseError("no text: the PDF has pages without text, perhaps scanned ones", "unsupported_file")
    return "\f".join(pages)
