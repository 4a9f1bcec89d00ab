"""Opening and closing accounts, each in a statement of its own."""

from typing import Final
from uuid import UUID

import asyncpg

from subgraphs.bank.service.adapters.postgres.database import connection
from subgraphs.bank.service.adapters.postgres.rows import ACCOUNT, account_of
from subgraphs.bank.service.domain.model import Account

_OPEN: Final = "INSERT INTO accounts (id, owner_id, currency) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING"

_CLOSE: Final = """
    UPDATE accounts SET status = 'CLOSED', updated_at = greatest(updated_at, now())
    WHERE id = $1 AND status = 'OPEN' AND balance = 0
"""


class Accounts:
    """Writes accounts. Each method may be called again with the same arguments: it does its work once."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def open(self, account_id: UUID, owner_id: str, currency: str) -> Account:
        """The account of this id: a new and empty one, or the one that is there."""
        async with connection(self._pool) as writing:
            await writing.execute(_OPEN, account_id, owner_id, currency)
            (row,) = await writing.fetch(f"{ACCOUNT} WHERE id = $1", account_id)
        return account_of(row)

    async def close(self, account_id: UUID) -> Account | None:
        """The account as it is afterwards: closed, unless it was not empty. It waits for whoever moves money on it."""
        async with connection(self._pool) as writing:
            await writing.execute(_CLOSE, account_id)
            row = await writing.fetchrow(f"{ACCOUNT} WHERE id = $1", account_id)
        return None if row is None else account_of(row)
