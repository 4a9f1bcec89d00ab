"""Create the table of the ledger's epoch. Its only row is updated after a restore from a backup. See ADR 38."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE ledger_epoch (
            is_only_row boolean PRIMARY KEY DEFAULT true CONSTRAINT ledger_epoch_is_only_row CHECK (is_only_row),
            epoch text NOT NULL DEFAULT '',
            began_at timestamptz NOT NULL DEFAULT now(),
            reason text NOT NULL DEFAULT ''
        )
    """)
    op.execute("COMMENT ON COLUMN ledger_epoch.epoch IS 'id of the epoch; empty for the first one'")
    op.execute("COMMENT ON COLUMN ledger_epoch.reason IS 'why the previous epoch was replaced'")
    op.execute("INSERT INTO ledger_epoch DEFAULT VALUES")


def downgrade() -> None:
    op.execute("DROP TABLE ledger_epoch")
