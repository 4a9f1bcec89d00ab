"""Opens and changes accounts. Each change is one statement."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from kit.db.pool import Connection
from kit.db.postgres import CONFIRM_COMMITS, CONNECT_TIMEOUT_SECONDS
from subgraphs.bank.service.adapters.postgres.database import LABEL, connection
from subgraphs.bank.service.adapters.postgres.rows import ACCOUNT, account_from_row
from subgraphs.bank.service.domain.model import Account, AccountChange, ChangeAction, Freeze
from wallet.errors import Unavailable
from wallet.money import Money

_OPEN: Final = """
    INSERT INTO accounts (id, owner_id, currency)
    SELECT $1::uuid, $2::text, $3::text WHERE NOT EXISTS (SELECT FROM accounts WHERE id = $4::uuid)
    ON CONFLICT (id) DO NOTHING
"""
_OPENED: Final = f"{ACCOUNT} WHERE id IN ($1, $2) ORDER BY id = $2 DESC LIMIT 1"

# One statement changes the account and records the change. The condition is checked again after a wait for the lock.
_CHANGE: Final = """
    WITH changed AS (
        UPDATE accounts SET {change}, updated_at = greatest(updated_at, now())
        WHERE id = $1 AND status = 'OPEN' AND purpose = 'CUSTOMER' AND {condition}
        RETURNING id, new.revision,
            jsonb_strip_nulls(jsonb_build_object(
                'status', old.status, 'frozen', old.frozen, 'floor', trim_scale(old.min_balance)::text
            )) AS before,
            jsonb_strip_nulls(jsonb_build_object(
                'status', new.status, 'frozen', new.frozen, 'floor', trim_scale(new.min_balance)::text
            )) AS after
    )
    INSERT INTO account_changes (account_id, revision, changed_by, action, reason, before, after)
    SELECT id, revision, $2, $3, $4, before, after FROM changed
"""
_CLOSE: Final = _CHANGE.format(change="status = 'CLOSED'", condition="balance = 0 AND frozen IS NULL")
_FREEZE: Final = _CHANGE.format(change="frozen = $5", condition="frozen IS DISTINCT FROM $5")
_THAW: Final = _CHANGE.format(change="frozen = NULL", condition="frozen IS NOT NULL")

_SET_FLOOR: Final = _CHANGE.format(
    change="min_balance = $5",
    condition="currency = $6 AND balance >= $5 AND min_balance IS DISTINCT FROM $5",
)

_CHANGES: Final = """
    SELECT revision, action, changed_by, changed_at, reason, before, after FROM account_changes
    WHERE account_id = $1 AND revision < $2 ORDER BY revision DESC LIMIT $3
"""
_ABOVE_ALL_REVISIONS: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes an account, and why."""

    changed_by: str
    reason: str = ""


class Accounts:
    """Repository that opens and changes accounts. Every method is idempotent."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Args:
        pool: connections to the ledger's database. Changes use at most a quarter of the connections. The others are
            left for reads while changes wait for a lock, for example for the lock of a redating (a correction of
            dates).
        """
        self._pool = pool
        self._changes = asyncio.Semaphore(max(1, pool.get_max_size() // 4))

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[Connection]:
        """Acquire a connection for a change.

        Raises:
            Unavailable: the database is unreachable, or changes that wait for a lock use all connections for changes.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                await self._changes.acquire()
        except TimeoutError as error:
            raise Unavailable(LABEL) from error
        try:
            async with connection(self._pool) as session:
                yield session
        finally:
            self._changes.release()

    async def open(
        self, account_id: UUID, owner_id: str, currency: str, earlier_id: UUID | None = None
    ) -> tuple[Account, bool]:
        """Insert an empty account unless its id exists. Return the stored account and whether it existed before.

        Args:
            account_id: id of the new account.
            owner_id: user id of the owner.
            currency: currency of the account.
            earlier_id: id that an earlier release gave the account for the same request. If an account with this id
                exists, it is returned and nothing is inserted.
        """
        async with self._changing() as session:
            inserted = await session.execute(_OPEN, account_id, owner_id, currency, earlier_id) != "INSERT 0 0"
            if not inserted:
                await session.execute(CONFIRM_COMMITS)
            (row,) = await session.fetch(_OPENED, account_id, earlier_id)
        return account_from_row(row), not inserted

    async def close(self, account_id: UUID, change: Change) -> Account | None:
        """Close the account if it is empty and not frozen, and return its state afterwards; None if it does not exist.

        This method and the other changes wait for transactions that hold the account's lock. They do not change
        clearing accounts and closed accounts, and record what they change.
        """
        return await self._change(_CLOSE, account_id, change, ChangeAction.CLOSE)

    async def freeze(self, account_id: UUID, frozen: Freeze, change: Change) -> Account | None:
        """Freeze the account, and return its state afterwards; None if it does not exist. See `close`."""
        return await self._change(_FREEZE, account_id, change, ChangeAction.FREEZE, frozen)

    async def thaw(self, account_id: UUID, change: Change) -> Account | None:
        """End the freeze of the account, and return its state afterwards; None if it does not exist. See `close`."""
        return await self._change(_THAW, account_id, change, ChangeAction.THAW)

    async def set_floor(self, account_id: UUID, floor: Money, change: Change) -> Account | None:
        """Set the lower limit of the balance, unless the balance is below it or the currency differs.

        Return the state of the account afterwards; None if it does not exist. See `close`.
        """
        values = (floor.amount, floor.currency)
        return await self._change(_SET_FLOOR, account_id, change, ChangeAction.SET_FLOOR, *values)

    async def list_changes(self, account_id: UUID, before: int | None, limit: int) -> list[AccountChange]:
        """List the recorded changes of an account below a revision, newest first; None: from the newest one."""
        async with connection(self._pool) as session:
            rows = await session.fetch(_CHANGES, account_id, before or _ABOVE_ALL_REVISIONS, limit)
        return [AccountChange(row["revision"], ChangeAction(row["action"]), *tuple(row.values())[2:]) for row in rows]

    async def _change(
        self, statement: str, account_id: UUID, change: Change, action: ChangeAction, *values: object
    ) -> Account | None:
        async with self._changing() as session:
            done = await session.execute(statement, account_id, change.changed_by, action, change.reason, *values)
            if done == "INSERT 0 0":
                await session.execute(CONFIRM_COMMITS)
            row = await session.fetchrow(f"{ACCOUNT} WHERE id = $1", account_id)
        return None if row is None else account_from_row(row)
