"""The first tables. A migration is frozen: what it made is written out here, not imported."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OPTIONS: dict[str, Any] = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    op.create_table(
        "cache_denials",
        sa.Column("entry_id", sa.String(length=64), nullable=False),
        sa.Column("question", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", "question"),
        **OPTIONS,
    )
    op.create_table(
        "cache_entries",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("exact_key", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("text", LONG_TEXT, nullable=True),
        sa.Column("answer", sa.LargeBinary(length=16777215), nullable=False),
        sa.Column("normal_key", sa.String(length=64), nullable=True),
        sa.Column("embedder", sa.String(length=255), nullable=False),
        sa.Column("vector", sa.LargeBinary(length=65535), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("stale_at", sa.Double(), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("live_key", sa.String(length=64), nullable=True),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("hits", sa.Integer(), nullable=False),
        sa.Column("last_used_at", sa.Double(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **OPTIONS,
    )
    op.create_index("ix_cache_entries_expires_at", "cache_entries", ["state", "expires_at"], unique=False)
    op.create_index("ix_cache_entries_normal_key", "cache_entries", ["namespace", "normal_key"], unique=False)
    op.create_index("ix_cache_entries_store_value", "cache_entries", ["value"], unique=False)
    op.create_index("ix_cache_entries_value", "cache_entries", ["namespace", "value"], unique=False)
    op.create_index("uq_cache_entries_key", "cache_entries", ["namespace", "live_key"], unique=True)
    op.create_table(
        "cache_epochs",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=261), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("raised_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "scope"),
        **OPTIONS,
    )
    op.create_table(
        "cache_leases",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("exact_key", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "exact_key"),
        **OPTIONS,
    )
    op.create_index("ix_cache_leases_expires_at", "cache_leases", ["expires_at"], unique=False)
    op.create_table(
        "cache_observations",
        sa.Column("seq", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("entry_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("correct", sa.Boolean(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("served", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        **OPTIONS,
    )
    op.create_index("ix_cache_observations_entry_id", "cache_observations", ["entry_id"], unique=False)
    op.create_index("ix_cache_observations_namespace", "cache_observations", ["namespace", "seq"], unique=False)
    op.create_table(
        "cache_outbox",
        sa.Column("seq", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("entry_id", sa.String(length=64), nullable=False),
        sa.Column("claimed_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        **OPTIONS,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_cache_outbox_entry_id", "cache_outbox", ["entry_id"], unique=False)
    op.create_table(
        "cache_queries",
        sa.Column("seq", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("entry_id", sa.String(length=64), nullable=True),
        sa.Column("similarity", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("query", LONG_TEXT, nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        **OPTIONS,
    )
    op.create_index("ix_cache_queries_namespace", "cache_queries", ["namespace", "seq"], unique=False)
    op.create_table(
        "cache_tags",
        sa.Column("entry_id", sa.String(length=64), nullable=False),
        sa.Column("tag", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", "tag"),
        **OPTIONS,
    )
    op.create_index("ix_cache_tags_tag", "cache_tags", ["tag"], unique=False)
