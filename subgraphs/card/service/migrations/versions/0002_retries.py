"""Adds the number of retries: a retry after a review uses new keys at the acquirer."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE top_ups ADD COLUMN retries integer NOT NULL DEFAULT 0")
    op.execute("COMMENT ON COLUMN top_ups.retries IS 'after a person has looked at it'")


def downgrade() -> None:
    op.execute("ALTER TABLE top_ups DROP COLUMN retries")
