"""The index of normal forms has the fingerprint: thousands of conversations may end in the same words."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_cache_entries_normal_key", "cache_entries")
    op.create_index("ix_cache_entries_normal_key", "cache_entries", ["namespace", "normal_key", "fingerprint"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_cache_entries_normal_key", "cache_entries")
    op.create_index("ix_cache_entries_normal_key", "cache_entries", ["namespace", "normal_key"], unique=False)
