"""Add the purpose of an account, its freeze, and the record of all changes of accounts. See ADR 47."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_COLUMNS = "owner_id, currency, status, min_balance, revision"


def upgrade() -> None:
    op.execute("DROP TRIGGER accounts_revise ON accounts")
    op.execute("""
        ALTER TABLE accounts
            ADD COLUMN frozen text CONSTRAINT accounts_frozen CHECK (frozen IN ('OUTGOING', 'INCOMING', 'ALL')),
            ADD COLUMN purpose text NOT NULL DEFAULT 'CUSTOMER'
                CONSTRAINT accounts_purpose CHECK (purpose IN ('CUSTOMER', 'CLEARING'))
    """)
    op.execute("COMMENT ON COLUMN accounts.frozen IS 'transfers that are refused: null, OUTGOING, INCOMING or ALL'")
    op.execute("COMMENT ON COLUMN accounts.min_balance IS 'lower limit of the balance; null means no limit'")
    op.execute("UPDATE accounts SET purpose = 'CLEARING' WHERE min_balance IS NULL")
    op.execute("""
        CREATE TABLE account_changes (
            account_id uuid NOT NULL,
            revision bigint NOT NULL,
            changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            changed_by text NOT NULL,
            action text NOT NULL,
            reason text NOT NULL,
            before jsonb NOT NULL,
            after jsonb NOT NULL,
            PRIMARY KEY (account_id, revision)
        )
    """)
    op.execute("COMMENT ON COLUMN account_changes.revision IS 'revision of the account after the change'")
    op.execute("COMMENT ON COLUMN account_changes.changed_by IS 'issuer|subject of the caller'")
    op.execute("""
        CREATE TRIGGER account_changes_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON account_changes
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
    # Changes before this migration were not recorded, so the count of changes starts now.
    op.execute("UPDATE accounts SET revision = 0 WHERE revision <> 0")
    op.execute(f"""
        CREATE TRIGGER accounts_revise BEFORE UPDATE OF {_COLUMNS}, frozen, purpose ON accounts
            FOR EACH ROW EXECUTE FUNCTION accounts_revise()
    """)


def downgrade() -> None:
    op.execute("DROP TABLE account_changes")
    op.execute("DROP TRIGGER accounts_revise ON accounts")
    op.execute("ALTER TABLE accounts DROP COLUMN frozen, DROP COLUMN purpose")
    op.execute("""
        COMMENT ON COLUMN accounts.min_balance IS
            'lower limit of the balance; null means no limit, for clearing accounts'
    """)
    op.execute(f"""
        CREATE TRIGGER accounts_revise BEFORE UPDATE OF {_COLUMNS} ON accounts
            FOR EACH ROW EXECUTE FUNCTION accounts_revise()
    """)
