"""The tables of the SQL store, in types that SQLite and MySQL both have."""

from sqlalchemy import Column, Double, Index, Integer, LargeBinary, MetaData, Named, String, Table, Text, TypedColumns, UniqueConstraint
from sqlalchemy.dialects.mysql import LONGTEXT

metadata = MetaData()

MAX_ANSWER_BYTES = 2**24 - 1
"""What MySQL's MEDIUMBLOB holds."""
MAX_VECTOR_BYTES = 2**16 - 1
"""What MySQL's BLOB holds: 16,383 dimensions."""


class EntryColumns(TypedColumns):
    """One row for each `cache.entry.Entry`, and how it has been used. Times are seconds since the epoch."""

    id: Named[str] = Column(String(64), primary_key=True)
    namespace: Named[str] = Column(String(64))
    exact_key: Named[str] = Column(String(64))
    fingerprint: Named[str] = Column(String(64))
    model: Named[str] = Column(String(255))
    text: Named[str | None] = Column(Text().with_variant(LONGTEXT(), "mysql", "mariadb"))
    answer: Named[bytes] = Column(LargeBinary(MAX_ANSWER_BYTES))
    vector: Named[bytes | None] = Column(LargeBinary(MAX_VECTOR_BYTES))
    """float32, little-endian."""
    created_at: Named[float] = Column(Double)
    expires_at: Named[float] = Column(Double)
    last_used_at: Named[float] = Column(Double)
    hits: Named[int] = Column(Integer)


# MySQL's default collation takes "a" and "A" for one key.
entries = Table(
    "entries",
    metadata,
    EntryColumns,
    UniqueConstraint("namespace", "exact_key", name="uq_entries_key"),
    Index("ix_entries_expires_at", "expires_at"),
    Index("ix_entries_last_used_at", "last_used_at"),
    Index("ix_entries_partition", "namespace", "fingerprint"),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
    mariadb_charset="utf8mb4",
    mariadb_collate="utf8mb4_bin",
)
