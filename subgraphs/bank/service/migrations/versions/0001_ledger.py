"""Create accounts, transfers, entries, idempotency keys and the outbox."""

from alembic import op

from wallet.accounts import clearing_account_id
from wallet.money import EXPONENTS

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE accounts (
            id uuid PRIMARY KEY DEFAULT uuidv7(),
            owner_id text,
            currency text NOT NULL DEFAULT 'RUB' CONSTRAINT accounts_currency CHECK (currency ~ '^[A-Z]{3}$'),
            status text NOT NULL DEFAULT 'OPEN' CONSTRAINT accounts_status CHECK (status IN ('OPEN', 'CLOSED')),
            opening_balance numeric(22, 4) NOT NULL DEFAULT 0,
            balance numeric(22, 4) NOT NULL DEFAULT 0,
            min_balance numeric(22, 4) DEFAULT 0,
            version bigint NOT NULL DEFAULT 0,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT accounts_min_balance CHECK (balance >= min_balance)
        ) WITH (fillfactor = 50)
    """)
    op.execute("CREATE INDEX accounts_owner ON accounts (owner_id)")
    op.execute("COMMENT ON COLUMN accounts.owner_id IS 'the user''s id; null: nobody''s'")
    op.execute("COMMENT ON COLUMN accounts.opening_balance IS 'set by trigger to the balance inserted'")
    op.execute("COMMENT ON COLUMN accounts.min_balance IS 'null: unbounded, for clearing accounts'")
    op.execute("COMMENT ON COLUMN accounts.version IS 'operations so far'")
    # The balance of an inserted row is its opening balance: balance = opening_balance + entries always holds.
    op.execute("""
        CREATE FUNCTION accounts_open() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.opening_balance := NEW.balance;
            NEW.version := 0;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER accounts_open BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION accounts_open()
    """)
    op.execute("""
        CREATE TABLE transfers (
            id uuid PRIMARY KEY,
            kind text NOT NULL CONSTRAINT transfers_kind CHECK (kind IN ('TRANSFER', 'DEPOSIT')),
            sender_id uuid NOT NULL,
            recipient_id uuid NOT NULL,
            amount numeric(22, 4) NOT NULL CONSTRAINT transfers_amount CHECK (amount > 0),
            currency text NOT NULL,
            status text NOT NULL DEFAULT 'COMPLETED' CONSTRAINT transfers_status CHECK (status = 'COMPLETED'),
            created_at timestamptz NOT NULL,
            idempotency_key text NOT NULL,
            sender_version bigint NOT NULL,
            recipient_version bigint NOT NULL,
            descriptor jsonb,
            CONSTRAINT transfers_two_accounts CHECK (sender_id <> recipient_id)
        )
    """)
    op.execute("COMMENT ON COLUMN transfers.idempotency_key IS 'not unique: scopes differ'")
    op.execute("COMMENT ON COLUMN transfers.sender_version IS 'with sender_id, the key of its entry'")
    op.execute("COMMENT ON COLUMN transfers.recipient_version IS 'with recipient_id, the key of its entry'")
    op.execute("COMMENT ON COLUMN transfers.descriptor IS 'the depositor''s words, opaque here'")
    op.execute("""
        CREATE TABLE entries (
            account_id uuid NOT NULL,
            version bigint NOT NULL CONSTRAINT entries_version CHECK (version > 0),
            transfer_id uuid NOT NULL,
            amount numeric(22, 4) NOT NULL,
            balance_after numeric(22, 4) NOT NULL,
            PRIMARY KEY (account_id, version)
        )
    """)
    op.execute("COMMENT ON COLUMN entries.amount IS 'signed; the two of a transfer net to zero'")
    op.execute("""
        CREATE TABLE idempotency_keys (
            principal text NOT NULL,
            operation text NOT NULL,
            key text NOT NULL,
            fingerprint bytea NOT NULL,
            transfer_id uuid,
            refusal jsonb,
            PRIMARY KEY (principal, operation, key),
            CONSTRAINT idempotency_keys_outcome CHECK (num_nonnulls(transfer_id, refusal) = 1)
        )
    """)
    op.execute("""
        COMMENT ON COLUMN idempotency_keys.principal IS
            'issuer|subject, or the constant of a service''s operation'
    """)
    op.execute("COMMENT ON COLUMN idempotency_keys.transfer_id IS 'the outcome, when it was made'")
    op.execute("COMMENT ON COLUMN idempotency_keys.refusal IS 'the outcome, when it was refused: reason and metadata'")
    op.execute("""
        CREATE TABLE outbox (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            transfer_id uuid NOT NULL
        )
    """)
    op.execute("COMMENT ON COLUMN outbox.id IS 'taken under the account locks'")
    # Entries and transfers are append-only.
    op.execute("""
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
    op.execute("""
        CREATE TRIGGER transfers_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transfers
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
    clearing = ", ".join(f"('{clearing_account_id(code)}', '{code}', NULL)" for code in sorted(EXPONENTS))
    op.execute(f"INSERT INTO accounts (id, currency, min_balance) VALUES {clearing}")  # noqa: S608  only constants


def downgrade() -> None:
    op.execute("DROP TABLE outbox, idempotency_keys, entries, transfers, accounts")
    op.execute("DROP FUNCTION accounts_open, refuse_change")
