"""The index of normal forms has the fingerprint: thousands of conversations may end in the same words."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OLD, NEW = "ix_cache_entries_normal_key", "ix_cache_entries_wording"


def upgrade() -> None:
    """MySQL commits after each statement: whoever is stopped in between goes on where it was."""
    names = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("cache_entries")}
    if NEW not in names:
        op.create_index(NEW, "cache_entries", ["namespace", "normal_key", "fingerprint"], unique=False)
    if OLD in names:
        op.drop_index(OLD, "cache_entries")


def downgrade() -> None:
    op.create_index(OLD, "cache_entries", ["namespace", "normal_key"], unique=False)
    op.drop_index(NEW, "cache_entries")
