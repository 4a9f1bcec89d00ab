"""Queries for accounts and transfers, and conversion of their rows to the domain's values."""

from typing import Final

import asyncpg

from subgraphs.bank.service.domain.model import (
    Account,
    AccountStatus,
    Freeze,
    Posting,
    Purpose,
    Transfer,
    TransferKind,
)
from subgraphs.bank.service.domain.words import Words
from wallet.money import Money

ACCOUNT: Final = """
    SELECT id, owner_id, currency, status, balance, min_balance, version, created_at, updated_at, revision, frozen,
           purpose
    FROM accounts
"""
ACCOUNT_COLUMNS: Final = 12
"""Number of columns of `ACCOUNT`."""

# OFFSET 0 fixes the join order: row by row, through the indexes. So a plan that was made while the tables were empty
# stays good when they are large.
TRANSFER: Final = """
    SELECT {columns} t.id, t.kind, t.sender_id, t.recipient_id, t.amount, t.currency, t.created_at,
           t.idempotency_key, t.sender_version, t.recipient_version, t.descriptor,
           s.balance_after AS sender_balance, r.balance_after AS recipient_balance,
           w.created_by, w.description, w.reference, w.is_reference_unique, w.metadata
    FROM {source}
    CROSS JOIN LATERAL (
        SELECT * FROM entries WHERE account_id = t.sender_id AND version = t.sender_version OFFSET 0
    ) AS s
    CROSS JOIN LATERAL (
        SELECT * FROM entries WHERE account_id = t.recipient_id AND version = t.recipient_version OFFSET 0
    ) AS r
    LEFT JOIN LATERAL (SELECT * FROM transfer_words WHERE transfer_id = t.id OFFSET 0) AS w ON true
"""

REFERENCED_TRANSFERS: Final = (
    "({references}) AS o, LATERAL (SELECT * FROM transfers WHERE id = o.transfer_id OFFSET 0) AS t"
)
"""`source` of `TRANSFER`: the transfers that the query `references` names in its column `transfer_id`."""

TRANSFERS_BY_ID: Final = TRANSFER.format(columns="", source="transfers t") + "WHERE t.id = ANY($1)"


def account_from_row(row: asyncpg.Record) -> Account:
    """Convert a row of `ACCOUNT`."""
    return Account(
        row["id"],
        row["owner_id"],
        AccountStatus(row["status"]),
        Money(row["balance"], row["currency"]),
        row["min_balance"],
        row["version"],
        row["created_at"],
        row["updated_at"],
        row["revision"],
        None if row["frozen"] is None else Freeze(row["frozen"]),
        Purpose(row["purpose"]),
    )


def transfer_from_row(row: asyncpg.Record) -> Transfer:
    """Convert a row of `TRANSFER`."""
    currency = row["currency"]
    return Transfer(
        row["id"],
        TransferKind(row["kind"]),
        Posting(row["sender_id"], row["sender_version"], Money(row["sender_balance"], currency)),
        Posting(row["recipient_id"], row["recipient_version"], Money(row["recipient_balance"], currency)),
        Money(row["amount"], currency),
        row["created_at"],
        row["idempotency_key"],
        row["descriptor"] or {},
        None if row["created_by"] is None else _words_from_row(row),
    )


def _words_from_row(row: asyncpg.Record) -> Words:
    return Words(
        row["description"] or "",
        row["reference"] or "",
        row["metadata"] or {},
        row["is_reference_unique"],
        row["created_by"],
    )
