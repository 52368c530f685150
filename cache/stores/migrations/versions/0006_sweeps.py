"""Invalidations know when their entries are to be looked for: comparing all entries with all of them took seconds at every turn."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMN, INDEX = "next_sweep_at", "ix_cache_epochs_next_sweep_at"


def upgrade() -> None:
    """MySQL commits after each statement: whoever is stopped in between goes on where it was."""
    inspected = sa.inspect(op.get_bind())
    if COLUMN not in {column["name"] for column in inspected.get_columns("cache_epochs")}:
        op.add_column("cache_epochs", sa.Column(COLUMN, sa.Double(), nullable=True))
    if INDEX not in {index["name"] for index in inspected.get_indexes("cache_epochs")}:
        op.create_index(INDEX, "cache_epochs", [COLUMN], unique=False)
    epochs = sa.table("cache_epochs", sa.column("scope"), sa.column("raised_at"), sa.column(COLUMN))
    op.execute(epochs.update().where(epochs.c.scope != "", epochs.c[COLUMN].is_(None)).values({COLUMN: epochs.c.raised_at}))


def downgrade() -> None:
    op.drop_index(INDEX, "cache_epochs")
    op.drop_column("cache_epochs", COLUMN)
