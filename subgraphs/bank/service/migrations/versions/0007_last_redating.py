"""Add the time of the last redating (a correction of dates). A replica without this time lacks the new dates.

See ADR 38.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE ledger_epoch ADD COLUMN redated_at timestamptz")
    op.execute("COMMENT ON COLUMN ledger_epoch.redated_at IS 'time of the last redating; null: there was none'")
    op.execute("UPDATE ledger_epoch SET redated_at = (SELECT max(redated_at) FROM redatings)")


def downgrade() -> None:
    op.execute("ALTER TABLE ledger_epoch DROP COLUMN redated_at")
