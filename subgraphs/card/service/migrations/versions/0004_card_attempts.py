"""Add attempts to use a card, which the limits of declined cards count, and a digest of each top-up's card.

The digest shows whether a repeated request has the same card. Earlier releases ignore the tables and the column, so an
earlier release and this one can run at the same time.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COMMENTS = {
    "top_ups.card_digest": "HMAC of card number and expiry; null: created by an earlier release",
    "card_attempts.id": "id of the top-up that the attempt leads to",
    "card_attempts.principal": "issuer|subject of the caller; null: an operator lifted the block",
    "card_attempts.address": "address of the client, IPv6: its /64; null: not known, or lifted",
    "card_attempts.card": "HMAC of the card number; null: lifted",
    "card_attempts.since": "start of the state",
    "decline_lifts.id": "UUIDv7",
    "decline_lifts.kind": "kind of the limit",
    "decline_lifts.customers": "customers whose declines no longer count",
    "decline_lifts.lifted_by": "issuer|subject of the operator",
}


def upgrade() -> None:
    op.execute("ALTER TABLE top_ups ADD COLUMN card_digest bytea")
    op.execute("""
        CREATE TABLE card_attempts (
            id uuid PRIMARY KEY,
            principal text,
            idempotency_key text NOT NULL,
            address text,
            card bytea,
            state text NOT NULL DEFAULT 'TOKENIZING'
                CONSTRAINT card_attempts_state CHECK (state IN ('TOKENIZING', 'AUTHORIZING', 'DECLINED')),
            since timestamptz NOT NULL DEFAULT clock_timestamp()
        )
    """)
    for column in ("principal", "address", "card"):
        op.execute(f"CREATE INDEX card_attempts_{column} ON card_attempts ({column})")
    op.execute("""
        CREATE TABLE decline_lifts (
            id uuid PRIMARY KEY,
            kind text NOT NULL,
            customers text[] NOT NULL,
            declines integer NOT NULL,
            lifted_by text NOT NULL,
            lifted_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    for column, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {column} IS '{comment}'")


def downgrade() -> None:
    op.execute("DROP TABLE card_attempts, decline_lifts")
    op.execute("ALTER TABLE top_ups DROP COLUMN card_digest")
