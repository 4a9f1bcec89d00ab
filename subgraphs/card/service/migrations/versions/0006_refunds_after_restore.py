"""Allow a completed top-up under review to become refunded, after a restore of the bank's ledger from a backup."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_FUNCTION = """
    CREATE OR REPLACE FUNCTION top_ups_keep() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (NEW.id, NEW.principal, NEW.idempotency_key, NEW.fingerprint, NEW.owner_id, NEW.account_id, NEW.amount,
            NEW.currency, NEW.card_token, NEW.card_brand, NEW.card_last_four, NEW.created_at)
            IS DISTINCT FROM
           (OLD.id, OLD.principal, OLD.idempotency_key, OLD.fingerprint, OLD.owner_id, OLD.account_id, OLD.amount,
            OLD.currency, OLD.card_token, OLD.card_brand, OLD.card_last_four, OLD.created_at)
        THEN
            RAISE EXCEPTION 'what was asked for does not change' USING ERRCODE = 'restrict_violation';
        END IF;
        {refund}
        IF OLD.status IN ('COMPLETED', 'DECLINED', 'VOIDED', 'REFUNDED')
            AND (NEW.status, NEW.step, NEW.failure, NEW.payment_id,
                 CASE WHEN OLD.status = 'COMPLETED' AND OLD.review IS NOT NULL
                      THEN OLD.transfer_id ELSE NEW.transfer_id END)
                IS DISTINCT FROM (OLD.status, OLD.step, OLD.failure, OLD.payment_id, OLD.transfer_id)
        THEN
            RAISE EXCEPTION 'a top-up that is % stays so', OLD.status USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
"""
_REFUND = """
        IF OLD.status = 'COMPLETED' AND OLD.review IS NOT NULL AND NEW.status = 'REFUNDED'
            AND NEW.payment_id IS NOT DISTINCT FROM OLD.payment_id
        THEN
            RETURN NEW;
        END IF;
"""


def upgrade() -> None:
    op.execute(_FUNCTION.format(refund=_REFUND))


def downgrade() -> None:
    op.execute(_FUNCTION.format(refund=""))
