"""The ledger's rows as they are when all is over, by SQL of the checker's own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from loadtests.history.calls import Body, Key, Refusal

_ACCOUNTS: Final = """
    SELECT id, owner_id, currency, status, opening_balance, balance, min_balance, version FROM accounts
    WHERE $1::uuid[] IS NULL OR id = ANY($1)
"""
_TRANSFERS: Final = """
    SELECT id, kind, sender_id, recipient_id, amount, currency, created_at, idempotency_key,
           sender_version, recipient_version
    FROM transfers
    WHERE $1::uuid[] IS NULL OR sender_id = ANY($1) OR recipient_id = ANY($1)
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
_GAINED: Final = "SELECT coalesce(sum(balance - opening_balance), 0) FROM accounts"


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
    """All rows, in no order; or those of some accounts. `outside` are accounts that these have to do with and that
    others use, too: nobody keeps a book of them.
    """

    accounts: Sequence[Account]
    transfers: Sequence[Transfer]
    entries: Sequence[Entry]
    keys: Sequence[Pinned]
    outside: frozenset[UUID] = frozenset()


async def read(
    connection: asyncpg.Connection,
    accounts: Collection[UUID] | None = None,
    principals: Collection[str] = (),
    outside: Collection[UUID] = (),
) -> Ledger:
    """The ledger as it was at one moment: the whole of it, or what is about these accounts and principals' keys."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return Ledger(
            [Account(*row) for row in await connection.fetch(_ACCOUNTS, accounts)],
            [Transfer(*row) for row in await connection.fetch(_TRANSFERS, accounts)],
            [Entry(*row) for row in await connection.fetch(_ENTRIES, accounts)],
            [_pinned(row) for row in await connection.fetch(_KEYS, accounts, principals)],
            frozenset(outside),
        )


async def gained(connection: asyncpg.Connection) -> Decimal:
    """What all balances have come to beyond what was there at first, in one statement and so at one moment: nothing."""
    found: Decimal = await connection.fetchval(_GAINED)
    return found


def shown(account_id: UUID, operation: Mapping[str, Any]) -> Entry:
    """The entry that an operation of the REST API's history is."""
    amount = Decimal(operation["amount"])
    signed = amount if operation["direction"] == "IN" else -amount
    balance = Decimal(operation["balanceAfter"])
    return Entry(account_id, operation["version"], UUID(operation["id"]), signed, balance)


def _pinned(row: asyncpg.Record) -> Pinned:
    refusal = None if row["refusal"] is None else Refusal(**orjson.loads(row["refusal"]))
    return Pinned(Key(row["principal"], row["operation"], row["key"]), row["transfer_id"], refusal)
