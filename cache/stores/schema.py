"""The tables of the SQL stores, in types that SQLite and MySQL both have. `migrations/` makes and changes them."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Named,
    SmallInteger,
    String,
    Table,
    Text,
    TypedColumns,
)
from sqlalchemy.dialects.mysql import LONGTEXT

metadata = MetaData()
VERSION_TABLE = "cache_schema_version"
"""Where Alembic notes how far the migrations are."""

MAX_ANSWER_BYTES = 2**24 - 1
"""What MySQL's MEDIUMBLOB holds."""
MAX_VECTOR_BYTES = 2**16 - 1
"""What MySQL's BLOB holds: 16,383 dimensions."""
MAX_MODEL_CHARS = 255
MAX_TAG_CHARS = 64
MAX_SCOPE_CHARS = len("model:") + MAX_MODEL_CHARS

LONG_TEXT = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
SEQUENCE = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows by itself in a column that is called INTEGER only."""

PENDING, LIVE, DEAD = 0, 1, 2

OPTIONS: dict[str, Any] = {
    # MySQL's default collation takes "a" and "A" for one key.
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}


class EntryColumns(TypedColumns):
    """One row for each `cache.entry.Entry`, its state and how it has been used. Times are seconds since the epoch."""

    id: Named[str] = Column(String(64), primary_key=True)
    namespace: Named[str] = Column(String(64))
    exact_key: Named[str] = Column(String(64))
    fingerprint: Named[str] = Column(String(64))
    model: Named[str] = Column(String(MAX_MODEL_CHARS))
    text: Named[str | None] = Column(LONG_TEXT)
    answer: Named[bytes] = Column(LargeBinary(MAX_ANSWER_BYTES))
    normal_key: Named[str | None] = Column(String(64))
    embedder: Named[str] = Column(String(255))
    vector: Named[bytes | None] = Column(LargeBinary(MAX_VECTOR_BYTES))
    """float32, little-endian."""
    created_at: Named[float] = Column(Double)
    stale_at: Named[float | None] = Column(Double)
    expires_at: Named[float] = Column(Double)
    epoch: Named[int] = Column(BigInteger)
    state: Named[int] = Column(SmallInteger)
    ended_at: Named[float | None] = Column(Double)
    """When it died."""
    live_key: Named[str | None] = Column(String(64))
    """`exact_key` while it is not dead, then NULL: what makes keys unique among the living."""
    tokens: Named[int] = Column(Integer)
    size: Named[int] = Column(Integer)
    hits: Named[int] = Column(Integer)
    last_used_at: Named[float] = Column(Double)
    value: Named[float] = Column(Double)
    """See `cache.stores.value`: what is lowest is evicted first."""


entries = Table(
    "cache_entries",
    metadata,
    EntryColumns,
    Index("uq_cache_entries_key", "namespace", "live_key", unique=True),
    Index("ix_cache_entries_namespace", "namespace", "id"),
    Index("ix_cache_entries_wording", "namespace", "normal_key", "fingerprint"),
    Index("ix_cache_entries_expires_at", "state", "expires_at"),
    Index("ix_cache_entries_value", "namespace", "value"),
    Index("ix_cache_entries_sums", "namespace", "state", "expires_at", "size", "hits", "tokens"),
    Index("ix_cache_entries_store_value", "value"),
    **OPTIONS,
)


class TagColumns(TypedColumns):
    entry_id: Named[str] = Column(String(64), primary_key=True)
    tag: Named[str] = Column(String(MAX_TAG_CHARS), primary_key=True)


tags = Table("cache_tags", metadata, TagColumns, Index("ix_cache_tags_tag", "tag"), **OPTIONS)


class EpochColumns(TypedColumns):
    """The epoch at which each scope of a namespace was last invalidated; the empty scope is the namespace's counter."""

    namespace: Named[str] = Column(String(64), primary_key=True)
    scope: Named[str] = Column(String(MAX_SCOPE_CHARS), primary_key=True)
    epoch: Named[int] = Column(BigInteger)
    raised_at: Named[float] = Column(Double)
    next_sweep_at: Named[float | None] = Column(Double)
    """When garbage collection is to look for its entries. A counter has none."""


epochs = Table("cache_epochs", metadata, EpochColumns, Index("ix_cache_epochs_next_sweep_at", "next_sweep_at"), **OPTIONS)


class OutboxColumns(TypedColumns):
    """Entries in which the vector index may differ from this database."""

    seq: Named[int] = Column(SEQUENCE, primary_key=True, autoincrement=True)
    entry_id: Named[str] = Column(String(64))
    claimed_until: Named[float] = Column(Double)


outbox = Table("cache_outbox", metadata, OutboxColumns, Index("ix_cache_outbox_entry_id", "entry_id"), sqlite_autoincrement=True, **OPTIONS)


class LeaseColumns(TypedColumns):
    """Who is computing the answer to a request."""

    namespace: Named[str] = Column(String(64), primary_key=True)
    exact_key: Named[str] = Column(String(64), primary_key=True)
    owner: Named[str] = Column(String(64))
    expires_at: Named[float] = Column(Double)


leases = Table("cache_leases", metadata, LeaseColumns, Index("ix_cache_leases_expires_at", "expires_at"), **OPTIONS)


class ObservationColumns(TypedColumns):
    """What was learnt of a kept answer: whether it would have answered another question."""

    seq: Named[int] = Column(SEQUENCE, primary_key=True, autoincrement=True)
    namespace: Named[str] = Column(String(64))
    entry_id: Named[str] = Column(String(64))
    kind: Named[str] = Column(String(16))
    score: Named[float] = Column(Double)
    correct: Named[bool] = Column(Boolean)
    created_at: Named[float] = Column(Double)
    scorer: Named[str] = Column(String(64))
    """Names the verifier and the embedder that the score is of."""


observations = Table(
    "cache_observations",
    metadata,
    ObservationColumns,
    Index("ix_cache_observations_entry_id", "entry_id"),
    Index("ix_cache_observations_namespace", "namespace", "seq"),
    **OPTIONS,
)


class AuditColumns(TypedColumns):
    """Hits whose answer was also computed anew, and whether the one that was served was right. They outlive their entry."""

    seq: Named[int] = Column(SEQUENCE, primary_key=True, autoincrement=True)
    namespace: Named[str] = Column(String(64))
    correct: Named[bool] = Column(Boolean)
    created_at: Named[float] = Column(Double)


audits = Table("cache_audits", metadata, AuditColumns, Index("ix_cache_audits_namespace", "namespace", "created_at"), **OPTIONS)


class DenialColumns(TypedColumns):
    """Questions that an entry must never answer again: feedback said so."""

    entry_id: Named[str] = Column(String(64), primary_key=True)
    question: Named[str] = Column(String(64), primary_key=True)
    """SHA-256 of the question's normal form."""
    created_at: Named[float] = Column(Double)


denials = Table("cache_denials", metadata, DenialColumns, **OPTIONS)


class QueryColumns(TypedColumns):
    """The query log: one line for each look-up, written later and lost in a crash."""

    seq: Named[int] = Column(SEQUENCE, primary_key=True, autoincrement=True)
    namespace: Named[str] = Column(String(64))
    model: Named[str] = Column(String(MAX_MODEL_CHARS))
    created_at: Named[float] = Column(Double)
    outcome: Named[str] = Column(String(32))
    entry_id: Named[str | None] = Column(String(64))
    similarity: Named[float | None] = Column(Double)
    seconds: Named[float] = Column(Double)
    query: Named[str | None] = Column(LONG_TEXT)


queries = Table("cache_queries", metadata, QueryColumns, Index("ix_cache_queries_namespace", "namespace", "seq"), **OPTIONS)
