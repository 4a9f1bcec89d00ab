"""The ledger's rows as they are when all is over, by SQL of the checker's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

import asyncpg
import orjson

from loadtests.history.calls import Body, Key, Refusal

_ACCOUNTS: Final = """
    SELECT id, owner_id, currency, status, opening_balance, balance, min_balance, version FROM accounts
"""
_TRANSFERS: Final = """
    SELECT id, kind, sender_id, recipient_id, amount, currency, created_at, idempotency_key,
           sender_version, recipient_version
    FROM transfers
"""
_ENTRIES: Final = "SELECT account_id, version, transfer_id, amount, balance_after FROM entries"
_KEYS: Final = "SELECT principal, operation, key, transfer_id, refusal::text FROM idempotency_keys"
_TOTAL: Final = "SELECT sum(balance) FROM accounts"


@dataclass(frozen=True, slots=True)
class Account:
    """A row of `accounts`. A `min_balance` of None: it may fall freely."""

    id: UUID
    owner_id: str | None
    currency: str
    status: str
    opening_balance: Decimal
    balance: Decimal
    min_balance: Decimal | None
    version: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """A row of `transfers`."""

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

    @property
    def body(self) -> Body:
        """The request that it fulfils."""
        return Body(self.sender_id, self.recipient_id, self.amount, self.currency)

    @property
    def sides(self) -> tuple[tuple[UUID, int, Decimal], tuple[UUID, int, Decimal]]:
        """Each account with the version that it came to and what was added to it."""
        return (
            (self.sender_id, self.sender_version, -self.amount),
            (self.recipient_id, self.recipient_version, self.amount),
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of `entries`."""

    account_id: UUID
    version: int
    transfer_id: UUID
    amount: Decimal
    balance_after: Decimal


@dataclass(frozen=True, slots=True)
class Pinned:
    """A row of `idempotency_keys`: the transfer that the key made, or what it was refused with."""

    key: Key
    transfer_id: UUID | None
    refusal: Refusal | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """All rows, in no order."""

    accounts: Sequence[Account]
    transfers: Sequence[Transfer]
    entries: Sequence[Entry]
    keys: Sequence[Pinned]


async def read(connection: asyncpg.Connection) -> Ledger:
    """The whole ledger as it was at one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return Ledger(
            [Account(*row) for row in await connection.fetch(_ACCOUNTS)],
            [Transfer(*row) for row in await connection.fetch(_TRANSFERS)],
            [Entry(*row) for row in await connection.fetch(_ENTRIES)],
            [_pinned(row) for row in await connection.fetch(_KEYS)],
        )


async def total(connection: asyncpg.Connection) -> Decimal:
    """The sum of all balances now, in one statement and so at one moment."""
    found: Decimal = await connection.fetchval(_TOTAL)
    return found


def _pinned(row: asyncpg.Record) -> Pinned:
    refusal = None if row["refusal"] is None else Refusal(**orjson.loads(row["refusal"]))
    return Pinned(Key(row["principal"], row["operation"], row["key"]), row["transfer_id"], refusal)
