"""What collections are made of."""

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from retrieval.errors import DocumentError

Attributes = Mapping[str, str | float | bool]
"""What a caller says of a document; kept as it is, and carried by each of its chunks."""

MAX_ATTRIBUTES = 16
MAX_KEY_CHARS = 64
MAX_VALUE_CHARS = 512

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_DOCUMENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")


@dataclass(frozen=True, slots=True)
class Document:
    """A text under an id, which is unique in its collection: adding it again replaces it."""

    id: str
    text: str
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A kept document without its text. `bytes` is the text's length in UTF-8."""

    id: str
    created_at: float
    bytes: int
    chunks: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Chunk:
    """The `ordinal`-th part of a document, counted from 0. Its id is `<document id>#<ordinal>`."""

    id: str
    document_id: str
    ordinal: int
    text: str
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A chunk and its cosine with the query, in [-1, 1]; larger is closer."""

    chunk: Chunk
    score: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The hits, best first, and the version of each collection that they come from, by its id."""

    hits: list[SearchHit]
    versions: dict[str, int]


@dataclass(frozen=True, slots=True)
class VectorStoreInfo:
    """A collection. `version` rises with every change of its documents; `created_at` is in seconds since the epoch."""

    id: str
    name: str
    created_at: float
    documents: int
    chunks: int
    version: int
    metadata: Mapping[str, str] = field(default_factory=dict)


def new_document(text: str, attributes: Attributes | None = None, document_id: str | None = None) -> Document:
    """A document under the caller's id or, without one, under an id that equal texts share."""
    return Document(content_id(text) if document_id is None else document_id, text, attributes or {})


def content_id(text: str) -> str:
    # "surrogatepass": a text that UTF-8 cannot express is refused by `check_document`, with a reason.
    return "doc_" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def chunk_id(document_id: str, ordinal: int) -> str:
    """No document id contains "#", so no two chunks of a collection share an id."""
    return f"{document_id}#{ordinal}"


def check_document(document: Document, max_bytes: int) -> None:
    """Raises `DocumentError` for a document that cannot be kept. The message never repeats the document."""
    if not _DOCUMENT_ID.fullmatch(document.id):
        raise DocumentError(
            "a document's id has 1 to 64 letters, digits and any of _ . : - and begins with a letter or digit", "documents.id"
        )
    if not is_unicode(document.text):
        raise DocumentError("the document's text is not valid Unicode", "documents.text")
    size = len(document.text.encode())
    if size > max_bytes:
        raise DocumentError(f"the document has {size} bytes; allowed: at most {max_bytes}", "documents.text")
    if not document.text.strip():
        raise DocumentError("the document has no text", "documents.text")
    check_attributes(document.attributes, "documents.attributes")


def check_attributes(attributes: Attributes, field: str) -> None:
    """OpenAI's limits, for a document's attributes and a collection's metadata. Raises `DocumentError`, which names `field`."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise DocumentError(f"{len(attributes)} attributes; allowed: at most {MAX_ATTRIBUTES}", field)
    if not all(len(key) <= MAX_KEY_CHARS and is_unicode(key) for key in attributes):
        raise DocumentError(f"an attribute's key is a text of at most {MAX_KEY_CHARS} characters", field)
    if not all(_is_value(value) for value in attributes.values()):
        raise DocumentError(f"an attribute is a text of at most {MAX_VALUE_CHARS} characters, a finite number or a boolean", field)


def is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON can carry and UTF-8 cannot."""
    return not _SURROGATE.search(text)


def _is_value(value: str | float | bool) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_VALUE_CHARS and is_unicode(value)
    return abs(value) <= sys.float_info.max
