"""Add the trace context to outbox rows."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE outbox ADD COLUMN traceparent text")
    op.execute("""
        COMMENT ON COLUMN outbox.traceparent IS 'of the call that made the transfer, if its trace is sampled'
    """)


def downgrade() -> None:
    op.execute("ALTER TABLE outbox DROP COLUMN traceparent")
