"""Creates the tables of top-ups and of received webhooks."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE top_ups (
            id uuid PRIMARY KEY,
            principal text NOT NULL,
            idempotency_key text NOT NULL,
            fingerprint bytea NOT NULL,
            owner_id text NOT NULL,
            account_id uuid NOT NULL,
            amount numeric(22, 4) NOT NULL CONSTRAINT top_ups_amount CHECK (amount > 0),
            currency text NOT NULL CONSTRAINT top_ups_currency CHECK (currency ~ '^[A-Z]{3}$'),
            card_token text NOT NULL,
            card_brand text NOT NULL,
            card_last_four text NOT NULL CONSTRAINT top_ups_last_four CHECK (card_last_four ~ '^[0-9]{4}$'),
            status text NOT NULL DEFAULT 'CREATED',
            step text DEFAULT 'AUTHORIZE',
            attempts integer NOT NULL DEFAULT 0,
            next_attempt_at timestamptz,
            failure text,
            payment_id text,
            transfer_id uuid,
            review text,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            version bigint NOT NULL DEFAULT 1,
            CONSTRAINT top_ups_key UNIQUE (principal, idempotency_key),
            CONSTRAINT top_ups_status CHECK (
                CASE status
                    WHEN 'CREATED' THEN step IN ('AUTHORIZE', 'RESOLVE', 'CANCEL')
                    WHEN 'AUTHORIZED' THEN step IN ('CAPTURE', 'VOID')
                    WHEN 'CAPTURED' THEN step IN ('DEPOSIT', 'REFUND')
                    WHEN 'NEEDS_REVIEW' THEN step IS NOT NULL AND review IS NOT NULL AND next_attempt_at IS NULL
                    WHEN 'COMPLETED' THEN step IS NULL AND transfer_id IS NOT NULL AND failure IS NULL
                    WHEN 'DECLINED' THEN step IS NULL AND transfer_id IS NULL AND failure IS NOT NULL
                    WHEN 'VOIDED' THEN step IS NULL AND transfer_id IS NULL AND failure IS NOT NULL
                    WHEN 'REFUNDED' THEN step IS NULL AND transfer_id IS NULL AND failure IS NOT NULL
                    ELSE false
                END
            )
        )
    """)
    op.execute("CREATE INDEX top_ups_account ON top_ups (account_id, id)")
    op.execute("CREATE INDEX top_ups_principal ON top_ups (principal, created_at)")
    op.execute("CREATE INDEX top_ups_due ON top_ups (next_attempt_at) WHERE next_attempt_at IS NOT NULL")
    op.execute("CREATE INDEX top_ups_review ON top_ups (id) WHERE review IS NOT NULL")
    comments = {
        "id": "UUIDv7",
        "principal": "issuer|subject: the scope of the idempotency key",
        "fingerprint": "HMAC over token, account and amount",
        "owner_id": "the user whose account it is",
        "card_token": "the acquirer''s name for the card",
        "step": "the call that is next, or being made; null: final",
        "attempts": "of the step, outcome unknown",
        "next_attempt_at": "when a driver may take it: the end of a lease, or of a pause",
        "payment_id": "the acquirer''s",
        "transfer_id": "the deposit in the ledger",
        "review": "what a person has to look at",
        "version": "grows with every change",
    }
    for column, comment in comments.items():
        op.execute(f"COMMENT ON COLUMN top_ups.{column} IS '{comment}'")
    # The request never changes, and a final status never changes: only the review of a final top-up may change.
    op.execute("""
        CREATE FUNCTION top_ups_keep() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (NEW.id, NEW.principal, NEW.idempotency_key, NEW.fingerprint, NEW.owner_id, NEW.account_id, NEW.amount,
                NEW.currency, NEW.card_token, NEW.card_brand, NEW.card_last_four, NEW.created_at)
                IS DISTINCT FROM
               (OLD.id, OLD.principal, OLD.idempotency_key, OLD.fingerprint, OLD.owner_id, OLD.account_id, OLD.amount,
                OLD.currency, OLD.card_token, OLD.card_brand, OLD.card_last_four, OLD.created_at)
            THEN
                RAISE EXCEPTION 'what was asked for does not change' USING ERRCODE = 'restrict_violation';
            END IF;
            IF OLD.status IN ('COMPLETED', 'DECLINED', 'VOIDED', 'REFUNDED')
                AND (NEW.status, NEW.step, NEW.failure, NEW.payment_id, NEW.transfer_id)
                    IS DISTINCT FROM (OLD.status, OLD.step, OLD.failure, OLD.payment_id, OLD.transfer_id)
            THEN
                RAISE EXCEPTION 'a top-up that is % stays so', OLD.status USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute("CREATE TRIGGER top_ups_keep BEFORE UPDATE ON top_ups FOR EACH ROW EXECUTE FUNCTION top_ups_keep()")
    op.execute("""
        CREATE FUNCTION refuse_removal() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% are never removed', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER top_ups_kept BEFORE DELETE OR TRUNCATE ON top_ups
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal()
    """)
    op.execute("""
        CREATE TABLE webhooks (
            id text PRIMARY KEY,
            type text NOT NULL,
            top_up_id uuid,
            received_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("COMMENT ON COLUMN webhooks.id IS 'the acquirer''s, the same on every delivery'")
    op.execute("COMMENT ON COLUMN webhooks.top_up_id IS 'null: of no payment of ours'")


def downgrade() -> None:
    op.execute("DROP TABLE webhooks, top_ups")
    op.execute("DROP FUNCTION top_ups_keep, refuse_removal")
