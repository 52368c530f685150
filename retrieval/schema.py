"""The tables of the document store, which is in SQLite; in types that MySQL has, too. `migrations/` makes and changes them."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Named,
    String,
    Table,
    Text,
    TypedColumns,
)
from sqlalchemy.dialects.mysql import LONGTEXT

metadata = MetaData()
VERSION_TABLE = "retrieval_schema_version"
"""Where Alembic notes how far the migrations are."""

MAX_VECTOR_BYTES = 2**16 - 1
"""What MySQL's BLOB holds: 16,383 dimensions."""

LONG_TEXT = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
SEQUENCE = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows by itself in a column that is called INTEGER only."""

OPTIONS: dict[str, Any] = {
    # MySQL's default collation takes "a" and "A" for one key.
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}
_NUMBERED: dict[str, Any] = {"sqlite_autoincrement": True, **OPTIONS}
"""No number is given twice: what still refers to a row that is gone must not find another."""


class StoreColumns(TypedColumns):
    """One row for each collection. `version` rises with every change of what a search may find."""

    seq: Named[int] = Column(SEQUENCE, primary_key=True, autoincrement=True)
    namespace: Named[str] = Column(String(64))
    id: Named[str] = Column(String(64))
    name: Named[str] = Column(String(255))
    embedder: Named[str] = Column(String(255))
    """Name of the encoder that made the vectors: those of another must not be compared with them."""
    created_at: Named[float] = Column(Double)
    version: Named[int] = Column(Integer)
    horizon: Named[int] = Column(Integer)
    """Up to this version it has been forgotten what ended: who knows an older one must read the collection anew."""
    details: Named[dict[str, str]] = Column(JSON)
    """The caller's metadata."""


class DocumentColumns(TypedColumns):
    """One row for each document of a collection: a text that a caller gave, or a file that is being read or was."""

    store: Named[int] = Column(SEQUENCE, primary_key=True, autoincrement=False)
    id: Named[str] = Column(String(64), primary_key=True)
    name: Named[str] = Column(String(255))
    created_at: Named[float] = Column(Double)
    status: Named[str] = Column(String(16))
    error_code: Named[str | None] = Column(String(32))
    error_message: Named[str | None] = Column(String(255))
    attributes: Named[dict[str, str | float | bool]] = Column(JSON)
    revision: Named[int | None] = Column(SEQUENCE)
    """The one that a search sees."""
    pending: Named[int | None] = Column(SEQUENCE)
    """The one in the making, which is to take its place."""
    version: Named[int] = Column(Integer)
    """The collection's at the last change of the revision or the attributes that a search sees."""
    bytes: Named[int] = Column(BigInteger)
    """Of the text that a search sees, in UTF-8."""
    usage: Named[int] = Column(BigInteger)
    """Bytes of text, chunks and vectors."""
    chunks: Named[int] = Column(Integer)
    chunk_tokens: Named[int] = Column(Integer)
    chunk_overlap_tokens: Named[int] = Column(Integer)
    file_namespace: Named[str | None] = Column(String(64))
    """Whose file it is made of: a group's collection has files of its members. NULL: a text."""
    batch: Named[str | None] = Column(String(64))
    """The batch that it was last added with."""


class RevisionColumns(TypedColumns):
    """One row for each text that a document has, had or is to have. Its chunks never change.

    It is visible from `version` to `ended`, both versions of the collection.
    """

    seq: Named[int] = Column(SEQUENCE, primary_key=True, autoincrement=True)
    store: Named[int] = Column(SEQUENCE)
    document_id: Named[str] = Column(String(64))
    version: Named[int | None] = Column(Integer)
    """NULL: in the making, or given up."""
    ended: Named[int | None] = Column(Integer)
    ended_at: Named[float | None] = Column(Double)
    swept: Named[bool] = Column(Boolean)
    """It has ended, and its chunks and text are deleted."""
    cut: Named[str | None] = Column(String(64))
    """SHA-256 of the chunks that the text was cut into. NULL: not yet."""
    chunks: Named[int | None] = Column(Integer)
    embedded: Named[int] = Column(Integer)
    """Chunks that are stored, with their vectors: those of the ordinals below it."""
    attributes: Named[dict[str, str | float | bool] | None] = Column(JSON(none_as_null=True))
    """What the document's are to be once a search sees this revision."""
    text: Named[str | None] = Column(LONG_TEXT)
    """Kept whole, for another way of cutting or encoding it. NULL: the file has not been read yet."""


class ChunkColumns(TypedColumns):
    """One row for each `retrieval.documents.Chunk`. Its attributes are its document's."""

    seq: Named[int] = Column(SEQUENCE, primary_key=True, autoincrement=True)
    store: Named[int] = Column(SEQUENCE)
    revision: Named[int] = Column(SEQUENCE)
    ordinal: Named[int] = Column(Integer)
    embedding: Named[bytes] = Column(LargeBinary(MAX_VECTOR_BYTES))
    """float32, little-endian."""
    text: Named[str] = Column(LONG_TEXT)


class FileColumns(TypedColumns):
    """One row for each uploaded file. Equal contents of a namespace are one file on disk, named by its hash."""

    namespace: Named[str] = Column(String(64), primary_key=True)
    id: Named[str] = Column(String(64), primary_key=True)
    name: Named[str] = Column(String(255))
    purpose: Named[str] = Column(String(32))
    bytes: Named[int] = Column(BigInteger)
    sha256: Named[str] = Column(String(64))
    created_at: Named[float] = Column(Double)


class BatchColumns(TypedColumns):
    """One row for each call that added several files to a collection."""

    store: Named[int] = Column(SEQUENCE, primary_key=True, autoincrement=False)
    id: Named[str] = Column(String(64), primary_key=True)
    created_at: Named[float] = Column(Double)
    cancelled: Named[bool] = Column(Boolean)


stores = Table("retrieval_stores", metadata, StoreColumns, Index("uq_retrieval_stores_id", "namespace", "id", unique=True), **_NUMBERED)
documents = Table(
    "retrieval_documents",
    metadata,
    DocumentColumns,
    Index("ix_retrieval_documents_sums", "store", "status", "revision", "usage", "chunks"),
    Index("ix_retrieval_documents_version", "store", "version"),
    Index("ix_retrieval_documents_pending", "pending"),
    Index("ix_retrieval_documents_file", "file_namespace", "id"),
    Index("ix_retrieval_documents_batch", "store", "batch", "status"),
    **OPTIONS,
)
revisions = Table(
    "retrieval_revisions",
    metadata,
    RevisionColumns,
    Index("ix_retrieval_revisions_ended", "store", "ended"),
    Index("ix_retrieval_revisions_swept", "swept", "ended_at"),
    **_NUMBERED,
)
chunks = Table(
    "retrieval_chunks",
    metadata,
    ChunkColumns,
    Index("uq_retrieval_chunks_ordinal", "revision", "ordinal", unique=True),
    Index("ix_retrieval_chunks_store", "store", "seq", "revision"),
    **_NUMBERED,
)
files = Table("retrieval_files", metadata, FileColumns, Index("ix_retrieval_files_sha256", "namespace", "sha256"), **OPTIONS)
batches = Table("retrieval_batches", metadata, BatchColumns, **OPTIONS)
