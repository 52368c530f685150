"""Observations of each scorer apart, and without what nobody read."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DELETE FROM cache_observations")  # whose scores they are is not known
    with op.batch_alter_table("cache_observations") as table:
        table.add_column(sa.Column("scorer", sa.String(length=64), nullable=False))
        table.drop_column("weight")
        table.drop_column("served")


def downgrade() -> None:
    op.execute("DELETE FROM cache_observations")
    with op.batch_alter_table("cache_observations") as table:
        table.add_column(sa.Column("served", sa.Boolean(), nullable=False))
        table.add_column(sa.Column("weight", sa.Double(), nullable=False))
        table.drop_column("scorer")
