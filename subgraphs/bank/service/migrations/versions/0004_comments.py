"""Describe the columns in plain words. Comments have no effect on the service, so a downgrade keeps them."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COMMENTS = {
    "accounts.owner_id": "id of the owner; null for accounts without an owner",
    "accounts.min_balance": "lower limit of the balance; null means no limit, for clearing accounts",
    "accounts.version": "number of operations of the account",
    "transfers.idempotency_key": "unique within its scope only",
    "transfers.sender_version": "version of the entry of sender_id",
    "transfers.recipient_version": "version of the entry of recipient_id",
    "transfers.descriptor": "data of the depositor, not interpreted by the bank",
    "entries.amount": "signed amount; the two entries of a transfer add up to zero",
    "idempotency_keys.principal": "issuer|subject of the caller, or a constant for operations of a service",
    "idempotency_keys.transfer_id": "the transfer, if the request was executed",
    "idempotency_keys.refusal": "reason and metadata of the error, if the request was refused",
    "outbox.id": "assigned while the accounts are locked",
    "outbox.traceparent": "trace context of the call, if it is sampled",
}


def upgrade() -> None:
    for column, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {column} IS '{comment}'")


def downgrade() -> None:
    pass
