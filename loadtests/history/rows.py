"""Rows of the ledger after a load test. The history checker, which verifies them, shares no SQL with the bank."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from loadtests.history.calls import IdempotencyKey, Refusal, RequestBody

_ACCOUNTS: Final = """
    SELECT id, owner_id, currency, status, opening_balance, balance, min_balance, version, purpose FROM accounts
    WHERE $1::uuid[] IS NULL OR id = ANY($1)
"""
_TRANSFERS: Final = """
    SELECT t.id, kind, t.sender_id, recipient_id, amount, currency, created_at, idempotency_key,
           sender_version, recipient_version,
           coalesce(description, ''), coalesce(reference, ''), coalesce(is_reference_unique, false)
    FROM transfers t LEFT JOIN transfer_words w ON w.transfer_id = t.id
    WHERE $1::uuid[] IS NULL OR t.sender_id = ANY($1) OR recipient_id = ANY($1)
"""
_ENTRIES: Final = """
    SELECT account_id, version, transfer_id, amount, balance_after FROM entries
    WHERE $1::uuid[] IS NULL OR account_id = ANY($1)
"""
_KEYS: Final = """
    SELECT principal, operation, key, transfer_id, refusal::text FROM idempotency_keys
    WHERE $1::uuid[] IS NULL OR principal = ANY($2) OR transfer_id IN (
        SELECT id FROM transfers WHERE sender_id = ANY($1) OR recipient_id = ANY($1)
    )
"""
_BALANCE_CHANGE: Final = "SELECT coalesce(sum(balance - opening_balance), 0) FROM accounts"


@dataclass(frozen=True, slots=True)
class Account:
    """Row of `accounts`. `min_balance` is None if the balance has no lower limit."""

    id: UUID
    owner_id: str | None
    currency: str
    status: str
    opening_balance: Decimal
    balance: Decimal
    min_balance: Decimal | None
    version: int
    purpose: str = "CUSTOMER"

    @property
    def is_clearing(self) -> bool:
        """Return whether this is a clearing account, the sender of deposits."""
        return self.purpose == "CLEARING"


@dataclass(frozen=True, slots=True)
class Transfer:
    """Row of `transfers`, with its row of `transfer_words`, if there is one."""

    id: UUID
    kind: str
    sender_id: UUID
    recipient_id: UUID
    amount: Decimal
    currency: str
    created_at: datetime
    idempotency_key: str
    sender_version: int
    recipient_version: int
    description: str = ""
    reference: str = ""
    is_reference_unique: bool = False

    @property
    def body(self) -> RequestBody:
        """Return the body of the request that the transfer fulfils."""
        return RequestBody(
            self.sender_id,
            self.recipient_id,
            self.amount,
            self.currency,
            self.description,
            self.reference,
            self.is_reference_unique,
        )

    @property
    def sides(self) -> tuple[tuple[UUID, int, Decimal], tuple[UUID, int, Decimal]]:
        """Return the account, its new version and the signed amount: first for the sender, then for the recipient."""
        return (
            (self.sender_id, self.sender_version, -self.amount),
            (self.recipient_id, self.recipient_version, self.amount),
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """Row of `entries`."""

    account_id: UUID
    version: int
    transfer_id: UUID
    amount: Decimal
    balance_after: Decimal


@dataclass(frozen=True, slots=True)
class IdempotencyRow:
    """Row of `idempotency_keys`: the transfer of the key, or its refusal."""

    key: IdempotencyKey
    transfer_id: UUID | None
    refusal: Refusal | None


@dataclass(frozen=True, slots=True)
class LedgerRows:
    """Rows of the ledger for all accounts or for selected accounts, in no order.

    `untracked` are accounts that take part in the transfers but that other clients use too, such as the clearing
    account. The checker does not verify their balances. `read_at` is the time of the database's clock after the rows
    were read.
    """

    accounts: Sequence[Account]
    transfers: Sequence[Transfer]
    entries: Sequence[Entry]
    keys: Sequence[IdempotencyRow]
    read_at: datetime
    untracked: frozenset[UUID] = frozenset()


async def read_rows(
    connection: asyncpg.Connection,
    accounts: Collection[UUID] | None = None,
    principals: Collection[str] = (),
    untracked: Collection[UUID] = (),
) -> LedgerRows:
    """Return the rows of one snapshot of the database.

    Args:
        connection: connection to the bank's database.
        accounts: accounts to read, with their transfers and entries; None reads all.
        principals: principals whose idempotency keys are read, in addition to the keys of the accounts' transfers.
        untracked: see `LedgerRows`.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return LedgerRows(
            [Account(*row) for row in await connection.fetch(_ACCOUNTS, accounts)],
            [Transfer(*row) for row in await connection.fetch(_TRANSFERS, accounts)],
            [Entry(*row) for row in await connection.fetch(_ENTRIES, accounts)],
            [_idempotency_row(row) for row in await connection.fetch(_KEYS, accounts, principals)],
            await connection.fetchval("SELECT clock_timestamp()"),
            frozenset(untracked),
        )


async def sum_balance_changes(connection: asyncpg.Connection) -> Decimal:
    """Return the sum of all balances minus the sum of all opening balances.

    In a correct ledger it is always 0: a transfer adds to one balance what it takes from another, and one statement
    reads all balances of the same moment.
    """
    change: Decimal = await connection.fetchval(_BALANCE_CHANGE)
    return change


def entry_from_rest(account_id: UUID, operation: Mapping[str, Any]) -> Entry:
    """Convert an operation of the REST API to the entry that it represents."""
    amount = Decimal(operation["amount"])
    signed = amount if operation["direction"] == "IN" else -amount
    balance = Decimal(operation["balanceAfter"])
    return Entry(account_id, operation["version"], UUID(operation["id"]), signed, balance)


def _idempotency_row(row: asyncpg.Record) -> IdempotencyRow:
    stored = None if row["refusal"] is None else orjson.loads(row["refusal"])
    refusal = stored and Refusal(stored["reason"], stored["metadata"])
    return IdempotencyRow(IdempotencyKey(row["principal"], row["operation"], row["key"]), row["transfer_id"], refusal)
