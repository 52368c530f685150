"""The keyring's tables, in types that SQLite and MySQL both have. `migrations/` makes and changes them."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Double, Index, MetaData, Named, String, Table, TypedColumns

from cache.stores.schema import OPTIONS, SEQUENCE

metadata = MetaData()
VERSION_TABLE = "keyring_schema_version"
"""Where Alembic notes how far the migrations are."""


class KeyColumns(TypedColumns):
    """One row for each key, also for revoked ones. Hashes are of `serve_app.keyring.secret.digest`."""

    id: Named[str] = Column(String(16), primary_key=True)
    tenant: Named[str] = Column(String(128))
    digest: Named[str] = Column(String(64))
    old_digest: Named[str | None] = Column(String(64))
    """Of the text before the last rotation, good until `old_until`."""
    old_until: Named[float | None] = Column(Double)
    settings: Named[dict[str, Any]] = Column(JSON)
    """Of `serve_app.keyring.settings.KeySettings`."""
    created_at: Named[float] = Column(Double)
    rotated_at: Named[float | None] = Column(Double)
    revoked_at: Named[float | None] = Column(Double)
    last_used_at: Named[float | None] = Column(Double)


keys = Table("keyring_keys", metadata, KeyColumns, Index("ix_keyring_keys_tenant", "tenant", "id"), **OPTIONS)


class TenantColumns(TypedColumns):
    """One row for each tenant that has settings of its own."""

    name: Named[str] = Column(String(128), primary_key=True)
    settings: Named[dict[str, Any]] = Column(JSON)
    """Of `serve_app.keyring.settings.TenantSettings`."""


tenants = Table("keyring_tenants", metadata, TenantColumns, **OPTIONS)


class AuditColumns(TypedColumns):
    """See `serve_app.keyring.settings.AuditRecord`. Nothing here is changed or deleted."""

    seq: Named[int] = Column(SEQUENCE, primary_key=True, autoincrement=True)
    at: Named[float] = Column(Double)
    actor: Named[str] = Column(String(255))
    action: Named[str] = Column(String(64))
    target: Named[str] = Column(String(255))
    details: Named[dict[str, Any]] = Column(JSON)


audit = Table("keyring_audit", metadata, AuditColumns, sqlite_autoincrement=True, **OPTIONS)


class RevisionColumns(TypedColumns):
    """One row. Every change raises it, so that whoever remembers keys can see cheaply whether anything has changed."""

    id: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False)
    revision: Named[int] = Column(BigInteger)


revision = Table("keyring_revision", metadata, RevisionColumns, **OPTIONS)
