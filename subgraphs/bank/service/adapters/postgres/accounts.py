"""Opens and closes accounts. Each change is one statement."""

from typing import Final
from uuid import UUID

import asyncpg

from kit.db.postgres import CONFIRM_COMMITS
from subgraphs.bank.service.adapters.postgres.database import connection
from subgraphs.bank.service.adapters.postgres.rows import ACCOUNT, account_from_row
from subgraphs.bank.service.domain.model import Account

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
        self._pool = pool

    async def open(
        self, account_id: UUID, owner_id: str, currency: str, earlier_id: UUID | None = None
    ) -> tuple[Account, bool]:
        """Insert an empty account unless it exists, and return the stored account and whether it existed before.

        Args:
            account_id: id of the new account.
            owner_id: user id of the owner.
            currency: currency of the account.
            earlier_id: id that an earlier release gave the account for the same request. If an account with this id
                exists, it is returned and nothing is inserted.
        """
        async with connection(self._pool) as session:
            inserted = await session.execute(_OPEN, account_id, owner_id, currency, earlier_id) != "INSERT 0 0"
            if not inserted:
                await session.execute(CONFIRM_COMMITS)
            (row,) = await session.fetch(_OPENED, account_id, earlier_id)
        return account_from_row(row), not inserted

    async def close(self, account_id: UUID) -> Account | None:
        """Close the account if it is empty, and return its state afterwards; None if it does not exist.

        Waits for transactions that hold the account's lock.
        """
        async with connection(self._pool) as session:
            if await session.execute(_CLOSE, account_id) == "UPDATE 0":
                await session.execute(CONFIRM_COMMITS)
            row = await session.fetchrow(f"{ACCOUNT} WHERE id = $1", account_id)
        return None if row is None else account_from_row(row)
