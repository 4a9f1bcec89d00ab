"""Rows as the domain's values."""

from typing import Final

import asyncpg

from subgraphs.bank.domain import Account, Entry, Kind, Operation, Status, Transfer
from wallet.money import Money

ACCOUNT: Final = """
    SELECT id, owner_id, currency, status, balance, min_balance, version, created_at, updated_at FROM accounts
"""

# OFFSET 0 keeps the planner to this order, row by row through the indexes: a plan that was made while the tables were
# empty is still right when they are not.
OPERATION: Final = """
    SELECT {columns} t.id, t.kind, t.sender_id, t.recipient_id, t.amount, t.currency, t.created_at,
           t.idempotency_key, t.sender_version, t.recipient_version, t.descriptor,
           s.balance_after AS sender_balance, r.balance_after AS recipient_balance
    FROM {source},
    LATERAL (SELECT * FROM entries WHERE account_id = t.sender_id AND version = t.sender_version OFFSET 0) AS s,
    LATERAL (SELECT * FROM entries WHERE account_id = t.recipient_id AND version = t.recipient_version OFFSET 0) AS r
"""

TRANSFERS_OF: Final = "({references}) AS o, LATERAL (SELECT * FROM transfers WHERE id = o.transfer_id OFFSET 0) AS t"
"""A source of `OPERATION`: the transfers that a query refers to by `transfer_id`."""

OPERATIONS_BY_ID: Final = OPERATION.format(columns="", source="transfers t") + "WHERE t.id = ANY($1)"


def account_of(row: asyncpg.Record) -> Account:
    """From a row of `ACCOUNT`."""
    return Account(
        row["id"],
        row["owner_id"],
        Status(row["status"]),
        Money(row["balance"], row["currency"]),
        row["min_balance"],
        row["version"],
        row["created_at"],
        row["updated_at"],
    )


def operation_of(row: asyncpg.Record) -> Operation:
    """From a row of `OPERATION`."""
    amount = Money(row["amount"], row["currency"])

    def entry(side: str, signed: Money) -> Entry:
        balance = Money(row[f"{side}_balance"], row["currency"])
        return Entry(row[f"{side}_id"], row[f"{side}_version"], row["id"], signed, balance)

    transfer = Transfer(
        row["id"],
        Kind(row["kind"]),
        row["sender_id"],
        row["recipient_id"],
        amount,
        row["created_at"],
        row["idempotency_key"],
        row["sender_version"],
        row["recipient_version"],
        row["descriptor"] or {},
    )
    return Operation(transfer, entry("sender", -amount), entry("recipient", amount))
