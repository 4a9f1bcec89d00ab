"""Describe columns so that each comment can be read alone. Comments have no effect, so a downgrade keeps them."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_COMMENTS = {
    "top_ups.principal": "caller, as the text issuer|subject; an idempotency key is unique for each caller",
    "top_ups.attempts": "number of attempts at the current step with an unknown outcome",
    "top_ups.retries": "number of retries by an operator after a review",
    "top_ups.next_attempt_at": "earliest time at which a process may take the top-up for its next step; null: never",
    "card_attempts.principal": "caller, as the text issuer|subject; null: an operator lifted the limit of this caller",
    "card_attempts.address": "IP address of the client, or the /64 network of an IPv6 address; null: the address is not"
    " known, or an operator lifted its limit",
    "card_attempts.card": "HMAC of the card number; null: an operator lifted the limit of this card",
    "card_attempts.since": "time at which the attempt got its current state",
    "decline_lifts.kind": "kind of the lifted limit: of a customer, an address or a card",
    "decline_lifts.customers": "customers (issuer|subject) whose declines no longer count for this limit",
    "decline_lifts.lifted_by": "operator, as the text issuer|subject",
}


def upgrade() -> None:
    for column, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {column} IS '{comment}'")


def downgrade() -> None:
    pass
