"""The tables of the document store, in types that SQLite and MySQL both have."""

from typing import Any

from sqlalchemy import JSON, Column, Double, Integer, LargeBinary, MetaData, Named, String, Table, Text, TypedColumns
from sqlalchemy.dialects.mysql import LONGTEXT

metadata = MetaData()

MAX_VECTOR_BYTES = 2**16 - 1
"""What MySQL's BLOB holds: 16,383 dimensions."""

# MySQL's default collation takes "a" and "A" for one key.
_OPTIONS: dict[str, Any] = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}
_LONG = Text().with_variant(LONGTEXT(), "mysql", "mariadb")


class StoreColumns(TypedColumns):
    """One row for each collection. `version` rises with every change of its documents."""

    namespace: Named[str] = Column(String(64), primary_key=True)
    id: Named[str] = Column(String(64), primary_key=True)
    name: Named[str] = Column(String(255))
    embedder: Named[str] = Column(String(255))
    """Name of the encoder that made the vectors: those of another must not be compared with them."""
    created_at: Named[float] = Column(Double)
    version: Named[int] = Column(Integer)
    details: Named[dict[str, str]] = Column(JSON)
    """The caller's metadata."""


class DocumentColumns(TypedColumns):
    """One row for each `retrieval.documents.Document`. The text is kept whole, for another way of cutting or encoding it."""

    namespace: Named[str] = Column(String(64), primary_key=True)
    store_id: Named[str] = Column(String(64), primary_key=True)
    id: Named[str] = Column(String(64), primary_key=True)
    created_at: Named[float] = Column(Double)
    bytes: Named[int] = Column(Integer)
    chunks: Named[int] = Column(Integer)
    attributes: Named[dict[str, str | float | bool]] = Column(JSON)
    text: Named[str] = Column(_LONG)


class ChunkColumns(TypedColumns):
    """One row for each `retrieval.documents.Chunk`. Its attributes are its document's."""

    namespace: Named[str] = Column(String(64), primary_key=True)
    store_id: Named[str] = Column(String(64), primary_key=True)
    document_id: Named[str] = Column(String(64), primary_key=True)
    ordinal: Named[int] = Column(Integer, primary_key=True)
    text: Named[str] = Column(_LONG)
    embedding: Named[bytes] = Column(LargeBinary(MAX_VECTOR_BYTES))
    """float32, little-endian."""


stores = Table("vector_stores", metadata, StoreColumns, **_OPTIONS)
documents = Table("vector_store_documents", metadata, DocumentColumns, **_OPTIONS)
chunks = Table("vector_store_chunks", metadata, ChunkColumns, **_OPTIONS)
