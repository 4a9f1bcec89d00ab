"""Opens and closes accounts. Each change is one statement."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import asyncpg

from kit.db.postgres import CONFIRM_COMMITS, CONNECT_TIMEOUT_SECONDS
from subgraphs.bank.service.adapters.postgres.database import Connection, connection
from subgraphs.bank.service.adapters.postgres.rows import ACCOUNT, account_from_row
from subgraphs.bank.service.domain.model import Account
from wallet.errors import Unavailable

_OPEN: Final = """
    INSERT INTO accounts (id, owner_id, currency)
    SELECT $1::uuid, $2::text, $3::text WHERE NOT EXISTS (SELECT FROM accounts WHERE id = $4::uuid)
    ON CONFLICT (id) DO NOTHING
"""
_OPENED: Final = f"{ACCOUNT} WHERE id IN ($1, $2) ORDER BY id = $2 DESC LIMIT 1"

_CLOSE: Final = """
    UPDATE accounts SET status = 'CLOSED', updated_at = greatest(updated_at, now())
    WHERE id = $1 AND status = 'OPEN' AND balance = 0
"""


class Accounts:
    """Repository that opens and closes accounts. Every method is idempotent."""

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
            raise Unavailable("the ledger's database") from error
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

    async def close(self, account_id: UUID) -> Account | None:
        """Close the account if it is empty, and return its state afterwards; None if it does not exist.

        Waits for transactions that hold the account's lock.
        """
        async with self._changing() as session:
            if await session.execute(_CLOSE, account_id) == "UPDATE 0":
                await session.execute(CONFIRM_COMMITS)
            row = await session.fetchrow(f"{ACCOUNT} WHERE id = $1", account_id)
        return None if row is None else account_from_row(row)
