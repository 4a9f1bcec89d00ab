"""Tables of the ledger. Alembic migrations create them; a test compares these definitions with the migrated schema.

There are no foreign keys, because each would cost an index look-up per row. Transfers are executed in batches, and a
batch locks its accounts before it writes rows with their ids, so the accounts exist. Append-only triggers and the
integrity check protect the references afterwards.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata: Final = MetaData()

_money: Final = Numeric(22, 4)
_time: Final = DateTime(timezone=True)
_now: Final = text("now()")
_zero: Final = text("0")

accounts: Final = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("uuidv7()")),
    Column("owner_id", Text, comment="id of the owner; null for accounts without an owner"),
    Column("currency", Text, nullable=False, server_default="RUB"),
    Column("status", Text, nullable=False, server_default="OPEN"),
    Column(
        "opening_balance",
        _money,
        nullable=False,
        server_default=_zero,
        comment="set by trigger to the balance inserted",
    ),
    Column("balance", _money, nullable=False, server_default=_zero),
    Column(
        "min_balance",
        _money,
        server_default=_zero,
        comment="lower limit of the balance; null means no limit",
    ),
    Column("version", BigInteger, nullable=False, server_default=_zero, comment="number of operations of the account"),
    Column("created_at", _time, nullable=False, server_default=_now),
    Column("updated_at", _time, nullable=False, server_default=_now),
    Column(
        "revision",
        BigInteger,
        nullable=False,
        server_default=_zero,
        comment="number of changes of the account that are not operations; set by trigger",
    ),
    Column("frozen", Text, comment="transfers that are refused: null, OUTGOING, INCOMING or ALL"),
    Column("purpose", Text, nullable=False, server_default="CUSTOMER"),
    CheckConstraint("balance >= min_balance", name="accounts_min_balance"),
    CheckConstraint("status IN ('OPEN', 'CLOSED')", name="accounts_status"),
    CheckConstraint("frozen IN ('OUTGOING', 'INCOMING', 'ALL')", name="accounts_frozen"),
    CheckConstraint("purpose IN ('CUSTOMER', 'CLEARING')", name="accounts_purpose"),
    CheckConstraint("status = 'OPEN' OR balance = 0", name="accounts_closed_empty"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="accounts_currency"),
    Index("accounts_owner", "owner_id"),
    # Free space on each page for the next version of a row, and no index on a column that changes: updates stay
    # heap-only (HOT).
    postgresql_with={"fillfactor": 50},
)

# Each change of an account that is not an operation, recorded in the transaction of the change.
account_changes: Final = Table(
    "account_changes",
    metadata,
    Column("account_id", Uuid, nullable=False),
    Column("revision", BigInteger, nullable=False, comment="revision of the account after the change"),
    Column("changed_at", _time, nullable=False, server_default=text("clock_timestamp()")),
    Column("changed_by", Text, nullable=False, comment="issuer|subject of the caller"),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("before", JSONB, nullable=False),
    Column("after", JSONB, nullable=False),
    PrimaryKeyConstraint("account_id", "revision"),
)

transfers: Final = Table(
    "transfers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("sender_id", Uuid, nullable=False),
    Column("recipient_id", Uuid, nullable=False),
    Column("amount", _money, nullable=False),
    Column("currency", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="COMPLETED"),
    Column("created_at", _time, nullable=False),
    # The scope is the principal and the operation; see idempotency_keys.
    Column("idempotency_key", Text, nullable=False, comment="unique within its scope only"),
    Column("sender_version", BigInteger, nullable=False, comment="version of the entry of sender_id"),
    Column("recipient_version", BigInteger, nullable=False, comment="version of the entry of recipient_id"),
    Column("descriptor", JSONB, comment="data of the depositor, not interpreted by the bank"),
    CheckConstraint("kind IN ('TRANSFER', 'DEPOSIT')", name="transfers_kind"),
    CheckConstraint("status = 'COMPLETED'", name="transfers_status"),
    CheckConstraint("amount > 0", name="transfers_amount"),
    CheckConstraint("sender_id <> recipient_id", name="transfers_two_accounts"),
)

# A row exists only for a transfer with a description, a reference or metadata. Only the description can be erased.
transfer_words: Final = Table(
    "transfer_words",
    metadata,
    Column("transfer_id", Uuid, primary_key=True),
    Column("sender_id", Uuid, nullable=False),
    Column("description", Text, comment="text for both sides; null: none, or erased"),
    Column("reference", Text, comment="the sender's own id of the transfer"),
    Column("is_reference_unique", Boolean, nullable=False, server_default=text("false")),
    Column("metadata", JSONB, comment="data of the creator, for the creator alone"),
    Column("created_by", Text, nullable=False, comment="issuer|subject of the creator"),
    Index("transfer_words_reference", "sender_id", "reference", postgresql_where=text("reference IS NOT NULL")),
    Index(
        "transfer_words_unique_reference",
        "sender_id",
        "reference",
        unique=True,
        postgresql_where=text("is_reference_unique"),
    ),
)

entries: Final = Table(
    "entries",
    metadata,
    Column("account_id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("transfer_id", Uuid, nullable=False),
    Column("amount", _money, nullable=False, comment="signed amount; the two entries of a transfer add up to zero"),
    Column("balance_after", _money, nullable=False),
    PrimaryKeyConstraint("account_id", "version"),
    CheckConstraint("version > 0", name="entries_version"),
)

idempotency_keys: Final = Table(
    "idempotency_keys",
    metadata,
    Column(
        "principal",
        Text,
        nullable=False,
        comment="issuer|subject of the caller, or a constant for operations of a service",
    ),
    Column("operation", Text, nullable=False),
    Column("key", Text, nullable=False),  # as `wallet.idempotency_key.stored_forms` returns it
    Column("fingerprint", LargeBinary, nullable=False),
    Column("transfer_id", Uuid, comment="the transfer, if the request was executed"),
    Column("refusal", JSONB, comment="reason and metadata of the error, if the request was refused"),
    PrimaryKeyConstraint("principal", "operation", "key"),
    CheckConstraint("num_nonnulls(transfer_id, refusal) = 1", name="idempotency_keys_outcome"),
)

# An epoch is one uninterrupted sequence of operations. A restore from an older backup begins another epoch.
ledger_epoch: Final = Table(
    "ledger_epoch",
    metadata,
    Column("is_only_row", Boolean, primary_key=True, server_default=text("true")),
    Column(
        "epoch", Text, nullable=False, server_default=text("''"), comment="id of the epoch; empty for the first one"
    ),
    Column("began_at", _time, nullable=False, server_default=_now),
    Column("reason", Text, nullable=False, server_default=text("''"), comment="why the previous epoch was replaced"),
    Column("redated_at", _time, comment="time of the last redating; null: there was none"),
    Column(
        "past_epochs",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="ids of the past epochs, oldest first",
    ),
    CheckConstraint("is_only_row", name="ledger_epoch_is_only_row"),
)

outbox: Final = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="assigned while the accounts are locked"),
    Column("transfer_id", Uuid, nullable=False),
    Column("traceparent", Text, comment="trace context of the call, if it is sampled"),
)

# A redating corrects the date of transfers that are dated in the future, after a clock was wrong.
redatings: Final = Table(
    "redatings",
    metadata,
    Column("transfer_id", Uuid, nullable=False),
    Column("old_created_at", _time, nullable=False),
    Column("new_created_at", _time, nullable=False),
    Column("redated_at", _time, nullable=False, server_default=text("clock_timestamp()")),
    Column("redated_by", Text, nullable=False, comment="issuer|subject of the administrator"),
    PrimaryKeyConstraint("transfer_id", "redated_at"),
    CheckConstraint("new_created_at < old_created_at", name="redatings_earlier"),
)
