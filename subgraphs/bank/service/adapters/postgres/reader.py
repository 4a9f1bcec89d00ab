"""Reads, each on its own: it sees what is committed."""

from collections.abc import Iterable
from typing import Final
from uuid import UUID

import asyncpg

from subgraphs.bank.service.adapters.postgres.database import connection
from subgraphs.bank.service.adapters.postgres.replica import Replica
from subgraphs.bank.service.adapters.postgres.rows import (
    ACCOUNT,
    REFERRED,
    TRANSFER,
    TRANSFERS_BY_ID,
    account_of,
    transfer_of,
)
from subgraphs.bank.service.domain.model import Account, Transfer

_FIRST: Final = UUID(int=0)
"""Before every account: the nil UUID is nobody's."""

_VERSIONS: Final = "SELECT id, version FROM accounts WHERE id > $1 ORDER BY id LIMIT $2"

_ENTRIES: Final = "SELECT * FROM entries WHERE account_id = $1 AND version > $2 ORDER BY version LIMIT $3"

_TRANSFERS_OF_ACCOUNT: Final = (
    TRANSFER.format(columns="", source=REFERRED.format(references=_ENTRIES)) + "ORDER BY o.version"
)


class Reader:
    """Reads, each on its own: it sees what is committed."""

    def __init__(self, pool: asyncpg.Pool, replica: Replica | None = None) -> None:
        """Args:
        pool: of the ledger's database.
        replica: is asked first for transfers, which are written once. Accounts change, and are never read from it.
        """
        self._pool = pool
        self._replica = replica

    async def ping(self) -> None:
        """Returns when the database answers, and has the tables."""
        async with connection(self._pool) as reading:
            await reading.execute("SELECT FROM accounts LIMIT 1")

    async def accounts(self, ids: Iterable[UUID]) -> dict[UUID, Account]:
        """Those of the accounts that exist."""
        async with connection(self._pool) as reading:
            rows = await reading.fetch(f"{ACCOUNT} WHERE id = ANY($1)", list(ids))
        return {row["id"]: account_of(row) for row in rows}

    async def list_accounts(self, owner_id: str, after: UUID | None, limit: int) -> list[Account]:
        """The owner's accounts after an id, in id order."""
        query = f"{ACCOUNT} WHERE owner_id = $1 AND id > $2 ORDER BY id LIMIT $3"
        async with connection(self._pool) as reading:
            return [account_of(row) for row in await reading.fetch(query, owner_id, after or _FIRST, limit)]

    async def transfers(self, ids: Iterable[UUID]) -> dict[UUID, Transfer]:
        """Those of the transfers that exist, with their entries."""
        wanted = set(ids)
        rows = await self._written_once(TRANSFERS_BY_ID, list(wanted))
        if missing := wanted - {row["id"] for row in rows}:
            async with connection(self._pool) as reading:
                rows += await reading.fetch(TRANSFERS_BY_ID, list(missing))
        return {row["id"]: transfer_of(row) for row in rows}

    async def versions(self, after: UUID | None, limit: int) -> list[tuple[UUID, int]]:
        """The accounts after an id, in id order, with their versions."""
        async with connection(self._pool) as reading:
            return [(row["id"], row["version"]) for row in await reading.fetch(_VERSIONS, after or _FIRST, limit)]

    async def transfers_of(self, account_id: UUID, after_version: int, limit: int) -> list[Transfer]:
        """The transfers from and to the account after a version of it, in version order."""
        rows = await self._written_once(_TRANSFERS_OF_ACCOUNT, account_id, after_version, limit)
        if (read := len(rows)) < limit:  # versions have no gaps: so many are read of those after that one
            async with connection(self._pool) as reading:
                rows += await reading.fetch(_TRANSFERS_OF_ACCOUNT, account_id, after_version + read, limit - read)
        return [transfer_of(row) for row in rows]

    async def _written_once(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """What the replica has of it by now."""
        return await self._replica.fetch(query, *arguments) if self._replica else []
