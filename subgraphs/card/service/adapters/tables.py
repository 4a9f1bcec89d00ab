"""Tables of card top-ups. Alembic migrations create them; a test compares these definitions with the migrated schema.

No column holds a card's number or code. A card is stored as the acquirer's token, the brand, the last four digits and
keyed digests.
"""

from typing import Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

metadata: Final = MetaData()

_time: Final = DateTime(timezone=True)
_now: Final = text("now()")

top_ups: Final = Table(
    "top_ups",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7"),
    Column(
        "principal",
        Text,
        nullable=False,
        comment="caller, as the text issuer|subject; an idempotency key is unique for each caller",
    ),
    Column("idempotency_key", Text, nullable=False),  # as `wallet.idempotency_key.stored_forms` returns it
    Column("fingerprint", LargeBinary, nullable=False, comment="HMAC of card token, account and amount"),
    Column("owner_id", Text, nullable=False, comment="user who owns the account; empty if the account has no owner"),
    Column("account_id", Uuid, nullable=False),
    Column("amount", Numeric(22, 4), nullable=False),
    Column("currency", Text, nullable=False),
    Column("card_token", Text, nullable=False, comment="token of the card at the acquirer"),
    Column("card_brand", Text, nullable=False),
    Column("card_last_four", Text, nullable=False),
    Column("card_digest", LargeBinary, comment="HMAC of card number and expiry; null: created by an earlier release"),
    Column("status", Text, nullable=False, server_default="CREATED"),
    Column("step", Text, server_default="AUTHORIZE", comment="next call of the saga; null: the top-up is final"),
    Column(
        "attempts",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="number of attempts at the current step with an unknown outcome",
    ),
    Column(
        "retries",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="number of retries by an operator after a review",
    ),
    Column(
        "next_attempt_at",
        _time,
        comment="earliest time at which a process may take the top-up for its next step; null: never",
    ),
    Column("failure", Text),
    Column("payment_id", Text, comment="id of the payment at the acquirer"),
    Column("transfer_id", Uuid, comment="id of the deposit in the ledger"),
    Column("review", Text, comment="reason for a manual review"),
    Column("created_at", _time, nullable=False, server_default=_now),
    Column("updated_at", _time, nullable=False, server_default=_now),
    Column("version", BigInteger, nullable=False, server_default=text("1"), comment="grows with every change"),
    UniqueConstraint("principal", "idempotency_key", name="top_ups_key"),
    CheckConstraint("amount > 0", name="top_ups_amount"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="top_ups_currency"),
    CheckConstraint("card_last_four ~ '^[0-9]{4}$'", name="top_ups_last_four"),
    CheckConstraint(
        "CASE status"
        " WHEN 'CREATED' THEN step IN ('AUTHORIZE', 'RESOLVE', 'CANCEL')"
        " WHEN 'AUTHORIZED' THEN step IN ('CAPTURE', 'VOID')"
        " WHEN 'CAPTURED' THEN step IN ('DEPOSIT', 'REFUND')"
        " WHEN 'NEEDS_REVIEW' THEN step IS NOT NULL AND review IS NOT NULL AND next_attempt_at IS NULL"
        " WHEN 'COMPLETED' THEN step IS NULL AND transfer_id IS NOT NULL AND failure IS NULL"
        " WHEN 'DECLINED' THEN step IS NULL AND transfer_id IS NULL AND failure IS NOT NULL"
        " WHEN 'VOIDED' THEN step IS NULL AND transfer_id IS NULL AND failure IS NOT NULL"
        " WHEN 'REFUNDED' THEN step IS NULL AND transfer_id IS NULL AND failure IS NOT NULL"
        " ELSE false END",
        name="top_ups_status",
    ),
    Index("top_ups_account", "account_id", "id"),
    Index("top_ups_principal", "principal", "created_at"),
    Index("top_ups_due", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
    Index("top_ups_review", "id", postgresql_where=text("review IS NOT NULL")),
)

attempts: Final = Table(
    "card_attempts",
    metadata,
    Column("id", Uuid, primary_key=True, comment="id of the top-up that the attempt leads to"),
    Column(
        "principal",
        Text,
        comment="caller, as the text issuer|subject; null: an operator lifted the limit of this caller",
    ),
    Column("idempotency_key", Text, nullable=False),
    Column(
        "address",
        Text,
        comment="IP address of the client, or the /64 network of an IPv6 address; null: the address is not known, or an"
        " operator lifted its limit",
    ),
    Column("card", LargeBinary, comment="HMAC of the card number; null: an operator lifted the limit of this card"),
    Column("state", Text, nullable=False, server_default="TOKENIZING"),
    Column(
        "since",
        _time,
        nullable=False,
        server_default=text("clock_timestamp()"),
        comment="time at which the attempt got its current state",
    ),
    CheckConstraint("state IN ('TOKENIZING', 'AUTHORIZING', 'DECLINED')", name="card_attempts_state"),
    Index("card_attempts_principal", "principal"),
    Index("card_attempts_address", "address"),
    Index("card_attempts_card", "card"),
)

lifts: Final = Table(
    "decline_lifts",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7"),
    Column("kind", Text, nullable=False, comment="kind of the lifted limit: of a customer, an address or a card"),
    Column(
        "customers",
        ARRAY(Text),
        nullable=False,
        comment="customers (issuer|subject) whose declines no longer count for this limit",
    ),
    Column("declines", Integer, nullable=False),
    Column("lifted_by", Text, nullable=False, comment="operator, as the text issuer|subject"),
    Column("lifted_at", _time, nullable=False, server_default=_now),
)

webhooks: Final = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True, comment="id from the acquirer, the same in each delivery"),
    Column("type", Text, nullable=False),
    Column("top_up_id", Uuid, comment="null: this service did not create the payment"),
    Column("received_at", _time, nullable=False, server_default=_now),
)
