"""Require that closed accounts have balance 0."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE accounts ADD CONSTRAINT accounts_closed_empty CHECK (status = 'OPEN' OR balance = 0)
    """)


def downgrade() -> None:
    op.execute("ALTER TABLE accounts DROP CONSTRAINT accounts_closed_empty")
