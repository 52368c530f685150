"""The tables of kept contexts, in types that SQLite and MySQL both have. `migrations/` makes and changes them."""

from sqlalchemy import BigInteger, Column, Double, Index, MetaData, Named, String, Table, TypedColumns

from cache.stores.schema import LONG_TEXT, OPTIONS

metadata = MetaData()
VERSION_TABLE = "contexts_schema_version"
"""Where Alembic notes how far the migrations are."""
MAX_NAME_CHARS = 256
MAX_DESCRIPTION_CHARS = 512
MAX_TAG_CHARS = 128


class ContextColumns(TypedColumns):
    """One row for each `serve_app.contexts.store.Context`. Times are seconds since the epoch.

    What is JSON stands here as text: MySQL's own type puts members in another order, and prompts are made of these texts.
    """

    id: Named[str] = Column(String(64), primary_key=True)
    namespace: Named[str] = Column(String(64))
    model: Named[str] = Column(String(255))
    messages: Named[str] = Column(LONG_TEXT)
    tools: Named[str | None] = Column(LONG_TEXT)
    name: Named[str] = Column(String(MAX_NAME_CHARS))
    description: Named[str] = Column(String(MAX_DESCRIPTION_CHARS))
    labels: Named[str] = Column(LONG_TEXT)
    """What a context's `metadata` is."""
    tokens: Named[int] = Column(BigInteger)
    created_at: Named[float] = Column(Double)
    expires_at: Named[float] = Column(Double)


contexts = Table(
    "contexts",
    metadata,
    ContextColumns,
    Index("ix_contexts_namespace", "namespace", "created_at", "id"),
    Index("ix_contexts_expires_at", "expires_at"),
    **OPTIONS,
)


class TagColumns(TypedColumns):
    """What a tenant calls its contexts; a tag is of one at a time."""

    namespace: Named[str] = Column(String(64), primary_key=True)
    tag: Named[str] = Column(String(MAX_TAG_CHARS), primary_key=True)
    context_id: Named[str] = Column(String(64))
    created_at: Named[float] = Column(Double)


tags = Table("context_tags", metadata, TagColumns, Index("ix_context_tags_context_id", "context_id"), **OPTIONS)
