"""An index for sums over a namespace, its quota's and its statistics': rows, with answers and vectors, need not be read for them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INDEX = "ix_cache_entries_sums"
COLUMNS = ["namespace", "state", "expires_at", "size", "hits", "tokens"]


def upgrade() -> None:
    """MySQL commits after each statement: whoever is stopped in between goes on where it was."""
    if INDEX not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("cache_entries")}:
        op.create_index(INDEX, "cache_entries", COLUMNS, unique=False)


def downgrade() -> None:
    op.drop_index(INDEX, "cache_entries")
