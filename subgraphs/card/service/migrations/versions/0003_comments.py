"""Describes the columns in plain words. Comments have no effect on the service, so a downgrade keeps them."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COMMENTS = {
    "top_ups.principal": "issuer|subject of the caller: scope of the idempotency key",
    "top_ups.fingerprint": "HMAC of card token, account and amount",
    "top_ups.owner_id": "user who owns the account; empty if the account has no owner",
    "top_ups.card_token": "token of the card at the acquirer",
    "top_ups.step": "next call of the saga; null: the top-up is final",
    "top_ups.attempts": "attempts at the step that ended with an unknown outcome",
    "top_ups.retries": "retries by an operator after a review",
    "top_ups.next_attempt_at": "time from which a driver may claim the top-up; null: never",
    "top_ups.payment_id": "id of the payment at the acquirer",
    "top_ups.transfer_id": "id of the deposit in the ledger",
    "top_ups.review": "reason for a manual review",
    "webhooks.id": "id from the acquirer, the same in each delivery",
    "webhooks.top_up_id": "null: this service did not create the payment",
}


def upgrade() -> None:
    for column, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {column} IS '{comment}'")


def downgrade() -> None:
    pass
