"""Documents have revisions, which are made beside the one that is searched; chunks have numbers; files and batches are new.

What the first tables hold is copied. MySQL commits after each statement: who is stopped in between copies again, until the first of the
old tables is gone, and from then on only drops the others.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OPTIONS: dict[str, Any] = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
    "if_not_exists": True,
}
OLD = ("vector_stores", "vector_store_chunks", "vector_store_documents")
NEW = ("retrieval_chunks", "retrieval_revisions", "retrieval_documents", "retrieval_stores")

CHUNK_TOKENS, CHUNK_OVERLAP_TOKENS = 200, 30
"""What was configured then is not known; these were the defaults."""

COPIES = (
    """
    INSERT INTO retrieval_stores (namespace, id, name, embedder, created_at, version, horizon, details)
    SELECT namespace, id, name, embedder, created_at, version, version, details FROM vector_stores
    """,
    """
    INSERT INTO retrieval_revisions (store, document_id, version, swept, chunks, embedded, text)
    SELECT s.seq, d.id, s.version, 0, d.chunks, d.chunks, d.text FROM vector_store_documents d
    JOIN retrieval_stores s ON s.namespace = d.namespace AND s.id = d.store_id
    """,
    """
    INSERT INTO retrieval_chunks (store, revision, ordinal, embedding, text)
    SELECT s.seq, r.seq, c.ordinal, c.embedding, c.text FROM vector_store_chunks c
    JOIN retrieval_stores s ON s.namespace = c.namespace AND s.id = c.store_id
    JOIN retrieval_revisions r ON r.store = s.seq AND r.document_id = c.document_id
    """,
    f"""
    INSERT INTO retrieval_documents (store, id, name, created_at, status, attributes, revision, version, bytes, `usage`, chunks,
                                     chunk_tokens, chunk_overlap_tokens)
    SELECT s.seq, d.id, d.id, d.created_at, 'completed', d.attributes, r.seq, s.version, d.bytes,
           d.bytes + (SELECT coalesce(sum(length(c.embedding) + length(c.text)), 0) FROM retrieval_chunks c WHERE c.revision = r.seq),
           d.chunks, {CHUNK_TOKENS}, {CHUNK_OVERLAP_TOKENS}
    FROM vector_store_documents d
    JOIN retrieval_stores s ON s.namespace = d.namespace AND s.id = d.store_id
    JOIN retrieval_revisions r ON r.store = s.seq AND r.document_id = d.id
    """,  # noqa: S608
)


def upgrade() -> None:
    _create_tables()
    _create_indexes()
    present = set(sa.inspect(op.get_bind()).get_table_names())
    if OLD[0] in present:
        for statement in [*(f"DELETE FROM {table}" for table in NEW), *COPIES]:  # noqa: S608
            op.execute(statement)
    for table in OLD:
        if table in present:
            op.drop_table(table)


def _create_tables() -> None:
    op.create_table(
        "retrieval_stores",
        sa.Column("seq", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("embedder", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("horizon", sa.Integer(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_table(
        "retrieval_documents",
        sa.Column("store", SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("error_code", sa.String(length=32), nullable=True),
        sa.Column("error_message", sa.String(length=255), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("revision", SEQUENCE, nullable=True),
        sa.Column("pending", SEQUENCE, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("usage", sa.BigInteger(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("chunk_tokens", sa.Integer(), nullable=False),
        sa.Column("chunk_overlap_tokens", sa.Integer(), nullable=False),
        sa.Column("file_namespace", sa.String(length=64), nullable=True),
        sa.Column("batch", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("store", "id"),
        **OPTIONS,
    )
    op.create_table(
        "retrieval_revisions",
        sa.Column("seq", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("store", SEQUENCE, nullable=False),
        sa.Column("document_id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("ended", sa.Integer(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("swept", sa.Boolean(), nullable=False),
        sa.Column("cut", sa.String(length=64), nullable=True),
        sa.Column("chunks", sa.Integer(), nullable=True),
        sa.Column("embedded", sa.Integer(), nullable=False),
        sa.Column("attributes", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("text", LONG_TEXT, nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_table(
        "retrieval_chunks",
        sa.Column("seq", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("store", SEQUENCE, nullable=False),
        sa.Column("revision", SEQUENCE, nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("embedding", sa.LargeBinary(length=65535), nullable=False),
        sa.Column("text", LONG_TEXT, nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_table(
        "retrieval_files",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "id"),
        **OPTIONS,
    )
    op.create_table(
        "retrieval_batches",
        sa.Column("store", SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("store", "id"),
        **OPTIONS,
    )


INDEXES: dict[str, tuple[str, list[str], bool]] = {
    "uq_retrieval_stores_id": ("retrieval_stores", ["namespace", "id"], True),
    "ix_retrieval_documents_sums": ("retrieval_documents", ["store", "status", "revision", "usage", "chunks"], False),
    "ix_retrieval_documents_version": ("retrieval_documents", ["store", "version"], False),
    "ix_retrieval_documents_pending": ("retrieval_documents", ["pending"], False),
    "ix_retrieval_documents_file": ("retrieval_documents", ["file_namespace", "id"], False),
    "ix_retrieval_documents_batch": ("retrieval_documents", ["store", "batch", "status"], False),
    "ix_retrieval_revisions_ended": ("retrieval_revisions", ["store", "ended"], False),
    "ix_retrieval_revisions_swept": ("retrieval_revisions", ["swept", "ended_at"], False),
    "uq_retrieval_chunks_ordinal": ("retrieval_chunks", ["revision", "ordinal"], True),
    "ix_retrieval_chunks_store": ("retrieval_chunks", ["store", "seq", "revision"], False),
    "ix_retrieval_files_sha256": ("retrieval_files", ["namespace", "sha256"], False),
}


def _create_indexes() -> None:
    inspector = sa.inspect(op.get_bind())
    for name, (table, columns, unique) in INDEXES.items():
        if name not in {index["name"] for index in inspector.get_indexes(table)}:
            op.create_index(name, table, columns, unique=unique)


def downgrade() -> None:
    for table in (*NEW, "retrieval_files", "retrieval_batches"):
        op.drop_table(table)
