"""Count the changes of an account that the rules of transfers read, apart from operations. See ADR 47.

A trigger counts, so a change by hand is counted too. An operation changes no column of the trigger and does not call
it.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE accounts ADD COLUMN revision bigint NOT NULL DEFAULT 0")
    op.execute("""
        COMMENT ON COLUMN accounts.revision IS
            'number of changes of the account that are not operations; set by trigger'
    """)
    op.execute("""
        CREATE FUNCTION accounts_revise() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.revision := OLD.revision + 1;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER accounts_revise BEFORE UPDATE OF owner_id, currency, status, min_balance, revision ON accounts
            FOR EACH ROW EXECUTE FUNCTION accounts_revise()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER accounts_revise ON accounts")
    op.execute("DROP FUNCTION accounts_revise")
    op.execute("ALTER TABLE accounts DROP COLUMN revision")
