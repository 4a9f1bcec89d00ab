"""Add the past epochs of the ledger. A reader whose history was lost gets them from the ledger. See ADR 38.

The column starts with the first epoch, whose id is empty, unless it is the current one. The bank adds the epochs
between them when a reader sends them.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE ledger_epoch ADD COLUMN past_epochs text[] NOT NULL DEFAULT '{}'")
    op.execute("COMMENT ON COLUMN ledger_epoch.past_epochs IS 'ids of the past epochs, oldest first'")
    op.execute("UPDATE ledger_epoch SET past_epochs = ARRAY[''] WHERE epoch <> ''")


def downgrade() -> None:
    op.execute("ALTER TABLE ledger_epoch DROP COLUMN past_epochs")
