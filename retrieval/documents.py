"""What collections are made of."""

import hashlib
import math
import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from retrieval.errors import DocumentError

Attributes = Mapping[str, str | int | float | bool]
"""What a caller says of a document; kept as it is, and carried by each of its chunks. Between processes, too, an integer stays one."""

MAX_ATTRIBUTES = 16
MAX_KEY_CHARS = 64
MAX_VALUE_CHARS = 512
MAX_NAME_CHARS = 255
MAX_QUERIES = 16
"""Of one search."""
MAX_BATCH = 2000
"""Files in one batch: OpenAI's limit."""
MAX_INTEGER = 2**53
"""Numbers travel and are kept as doubles: of larger integers several are one, and a filter would take one for another."""

Status = Literal["in_progress", "completed", "failed", "cancelled"]
"""Of a document: being read, to be found, not to be read, or given up at the caller's wish."""

FILE_PREFIX = "file-"
"""Of the ids of uploaded files, which are documents' ids where such a file is attached."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_UNNAMEABLE = frozenset(("Cc", "Cs", "Zl", "Zp"))
"""Unicode's categories of what no name has: controls, surrogates, ends of lines and of paragraphs. Spaces of all widths, and what joins
emoji, are usual."""
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
    """The `ordinal`-th part of a document, counted from 0."""

    document_id: str
    ordinal: int
    text: str
    attributes: Attributes = field(default_factory=dict)
    name: str = ""
    """Of the file that it is from; empty if that is not known, or there is none."""

    @property
    def id(self) -> str:
        """No document's id contains "#", so no two chunks of a collection share one."""
        return f"{self.document_id}#{self.ordinal}"

    @property
    def filename(self) -> str:
        return self.name or self.document_id


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What a search is to find: the `top_k` chunks of all these collections that are nearest to any of the queries."""

    store_ids: list[str]
    queries: list[str]
    top_k: int
    filters: Any = None
    """JSON, as `retrieval.filters.parse_filter` takes it: only chunks whose attributes match."""
    score_threshold: float | None = None
    """Only chunks whose score is at least this."""


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A chunk and its cosine with the query, in [-1, 1]; larger is closer."""

    chunk: Chunk
    score: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The hits, best first, and of each collection by its id: the version that they come from, and the namespace that it lives in."""

    hits: list[SearchHit]
    versions: dict[str, int]
    scopes: dict[str, str] = field(default_factory=dict)
    """The caller's namespace, or a group's: who may see the collection, and so share what is computed of it."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A search whose provisional result is there; `end_search` waits for the final one, of the same versions."""

    result: SearchResult
    ticket: str | None = None
    """None: the result is final."""


@dataclass(frozen=True, slots=True)
class VectorStoreInfo:
    """A collection. `version` rises with every change of what a search may find; `created_at` is in seconds since the epoch.

    `documents` and `chunks` are those that a search may find.
    """

    id: str
    name: str
    created_at: float
    documents: int
    chunks: int
    version: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[Status, int] = field(default_factory=dict)
    """Documents by status, files among them; a status that none has is missing."""
    usage_bytes: int = 0
    """Text, chunks and vectors."""
    group: str = ""
    """The name of the group that it is shared by."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """An uploaded file. `bytes` is its length."""

    id: str
    name: str
    purpose: str
    bytes: int
    created_at: float


@dataclass(frozen=True, slots=True)
class ChunkingStrategy:
    """How long a file's chunks are, in tokens of the encoder."""

    max_tokens: int
    overlap_tokens: int


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that is to be read into a collection."""

    file_id: str
    attributes: Attributes = field(default_factory=dict)
    cutting: ChunkingStrategy | None = None
    """None: as configured."""


@dataclass(frozen=True, slots=True)
class AttachedFile:
    """A document of a collection as a file: what has become of it. A document that was given as a text is a file that was read at once."""

    id: str
    name: str
    created_at: float
    status: Status
    attributes: Attributes
    cutting: ChunkingStrategy
    usage_bytes: int
    chunks_done: int
    chunks_total: int | None
    """None: the file has not been cut yet."""
    error_code: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """Files that were added to a collection together."""

    id: str
    created_at: float
    cancelled: bool
    counts: Mapping[Status, int]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list in the order of ids: at most `limit` items behind the id `after` and before `before`.

    Ids that this package makes are in the order of their time.
    """

    limit: int = 100
    after: str = ""
    before: str = ""
    newest_first: bool = False


def new_id(prefix: str, now: float) -> str:
    """`prefix` and 24 hexadecimal digits: the milliseconds since the epoch, then chance. Later ids are behind earlier ones."""
    return f"{prefix}{int(now * 1000):012x}{secrets.token_hex(6)}"


def new_document(text: str, attributes: Attributes | None = None, document_id: str | None = None) -> Document:
    """A document under the caller's id or, without one, under an id that equal texts share."""
    return Document(content_id(text) if document_id is None else document_id, text, attributes or {})


def content_id(text: str) -> str:
    # "surrogatepass": a text that UTF-8 cannot express is refused by `check_document`, with a reason.
    return "doc_" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def check_document(document: Document, max_bytes: int, field: str) -> None:
    """Raises `DocumentError`, which names the place below `field`, for a document that cannot be kept. It never repeats the document."""
    if not _DOCUMENT_ID.fullmatch(document.id):
        raise DocumentError(
            "a document's id has 1 to 64 letters, digits and any of _ . : - and begins with a letter or digit", f"{field}.id"
        )
    if document.id.startswith(FILE_PREFIX):
        raise DocumentError(
            f"{field}.id begins with {FILE_PREFIX}, as uploaded files' ids do: choose another one, or attach the file through /files",
            f"{field}.id",
        )
    if not is_unicode(document.text):
        raise DocumentError("the document's text is not valid Unicode", f"{field}.text")
    size = len(document.text.encode())
    if size > max_bytes:
        raise DocumentError(f"the document has {size} bytes; allowed: at most {max_bytes}", f"{field}.text")
    if not document.text.strip():
        raise DocumentError("the document has no text", f"{field}.text")
    check_attributes(document.attributes, f"{field}.attributes")


def check_name(name: str, field: str) -> None:
    """A collection's or file's name. Raises `DocumentError`, which names `field`."""
    if len(name) > MAX_NAME_CHARS or any(unicodedata.category(each) in _UNNAMEABLE for each in name):
        raise DocumentError(f"a name has at most {MAX_NAME_CHARS} characters, and no line breaks or other control characters", field)


def check_attributes(attributes: Attributes, field: str) -> None:
    """OpenAI's limits, for a document's attributes and a collection's metadata. Raises `DocumentError`, which names `field`."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise DocumentError(f"{len(attributes)} attributes; allowed: at most {MAX_ATTRIBUTES}", field)
    if not all(len(key) <= MAX_KEY_CHARS and is_unicode(key) for key in attributes):
        raise DocumentError(f"an attribute's key is a text of at most {MAX_KEY_CHARS} characters", field)
    if not all(is_value(value) for value in attributes.values()):
        allowed = f"a text of at most {MAX_VALUE_CHARS} characters, a finite number (an integer of at most 2^53) or a boolean"
        raise DocumentError(f"an attribute is {allowed}", field)


def is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON can carry and UTF-8 cannot."""
    return not _SURROGATE.search(text)


def is_value(value: Any) -> bool:
    """Whether an attribute may have it."""
    if isinstance(value, str):
        return len(value) <= MAX_VALUE_CHARS and is_unicode(value)
    return (isinstance(value, bool | int) and abs(value) <= MAX_INTEGER) or (isinstance(value, float) and math.isfinite(value))
