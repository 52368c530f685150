"""An index for a namespace's pages."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_cache_entries_namespace", "cache_entries", ["namespace", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_cache_entries_namespace", "cache_entries")
