"""Reads of committed accounts and transfers, and of the ledger's epoch (see `epoch.py`)."""

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

import asyncpg

from kit.db.pool import ping
from subgraphs.bank.service.adapters.postgres.database import LABEL, connection
from subgraphs.bank.service.adapters.postgres.epoch import EPOCH, STATE, state_of
from subgraphs.bank.service.adapters.postgres.replica import Replica
from subgraphs.bank.service.adapters.postgres.rows import (
    ACCOUNT,
    REFERENCED_TRANSFERS,
    TRANSFER,
    TRANSFERS_BY_ID,
    account_from_row,
    transfer_from_row,
)
from subgraphs.bank.service.domain.model import Account, BalanceAt, BalanceRequest, Transfer
from wallet.money import Money

_NIL_ID: Final = UUID(int=0)
"""Sorts before every account id."""

# This statement reads and locks no row. It requests row locks of `outbox` and not of `accounts`, because a redating (a
# correction of dates) locks the table `accounts` for minutes. The bank stays ready during a redating: it can read.
_PING: Final = "SELECT FROM accounts, outbox LIMIT 0 FOR NO KEY UPDATE OF outbox"

_ACCOUNT_AND_EPOCH: Final = f"SELECT account.*, {EPOCH} AS epoch FROM ({ACCOUNT} WHERE id = $1) AS account"  # noqa: S608

_ACCOUNTS_AND_EPOCH: Final = f"""
    SELECT account.*, {EPOCH} AS epoch FROM ({ACCOUNT} WHERE id = ANY($1)) AS account
"""  # noqa: S608  only constants

_VERSIONS: Final = "SELECT id, version FROM accounts WHERE id > $1 ORDER BY id LIMIT $2"

_ENTRIES: Final = "SELECT * FROM entries WHERE account_id = $1 AND version > $2 ORDER BY version LIMIT $3"

_TRANSFERS_BY_ID: Final = f"""
    SELECT state.*, row.* FROM {STATE} AS state CROSS JOIN LATERAL ({TRANSFERS_BY_ID}) AS row
"""  # noqa: S608  only constants

_TRANSFERS: Final = TRANSFER.format(
    columns="o.version AS position,", source=REFERENCED_TRANSFERS.format(references=_ENTRIES)
)
_WITH_REFERENCE: Final = """
    SELECT transfer_id FROM transfer_words
    WHERE sender_id = $1 AND reference = $2 AND reference IS NOT NULL AND transfer_id > $3
    ORDER BY transfer_id LIMIT $4
"""
_TRANSFERS_WITH_REFERENCE: Final = (
    TRANSFER.format(columns="", source=REFERENCED_TRANSFERS.format(references=_WITH_REFERENCE)) + "ORDER BY t.id"
)
# For an account without transfers, the query returns one row that has the state only.
_TRANSFERS_OF_ACCOUNT: Final = f"""
    SELECT state.*, row.* FROM {STATE} AS state LEFT JOIN LATERAL ({_TRANSFERS}) AS row ON true ORDER BY row.position
"""  # noqa: S608  only constants


# Dates do not decrease with versions (invariant `TIME_FOLLOWS_VERSION`). So a binary search finds the last entry that
# is not later than a time: `low` is not later, and the versions above `high` are. A version needs no search.
# OFFSET 0 fixes the join order, as in `rows.TRANSFER`.
_BALANCES_AT: Final = """
    WITH RECURSIVE requested AS (
        SELECT r.number, r.at_time, a.*, least(coalesce(r.at_version, a.version), a.version) AS limit_version
        FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[])
            WITH ORDINALITY AS r(account_id, at_version, at_time, number)
        CROSS JOIN LATERAL (
            SELECT id, currency, opening_balance, version FROM accounts WHERE id = r.account_id OFFSET 0
        ) AS a
    ),
    search AS (
        SELECT number, id, currency, opening_balance, at_time,
               CASE WHEN at_time IS NULL THEN limit_version ELSE 0 END AS low, limit_version AS high
        FROM requested
        UNION ALL
        SELECT s.number, s.id, s.currency, s.opening_balance, s.at_time,
               CASE WHEN t.created_at <= s.at_time THEN s.middle ELSE s.low END,
               CASE WHEN t.created_at <= s.at_time THEN s.high ELSE s.middle - 1 END
        FROM (SELECT *, (low + high + 1) / 2 AS middle FROM search WHERE low < high) AS s
        CROSS JOIN LATERAL (
            SELECT transfer_id FROM entries WHERE account_id = s.id AND version = s.middle OFFSET 0
        ) AS e
        CROSS JOIN LATERAL (SELECT created_at FROM transfers WHERE id = e.transfer_id OFFSET 0) AS t
    )
    SELECT s.number, s.currency, coalesce(e.balance_after, s.opening_balance) AS balance, s.low AS version,
           t.created_at AS occurred_at
    FROM search AS s
    LEFT JOIN LATERAL (
        SELECT transfer_id, balance_after FROM entries WHERE account_id = s.id AND version = s.low OFFSET 0
    ) AS e ON true
    LEFT JOIN LATERAL (SELECT created_at FROM transfers WHERE id = e.transfer_id OFFSET 0) AS t ON true
    WHERE s.low = s.high
"""


class Reader:
    """Reads accounts and transfers. Transfers may come from the read replica, because a committed transfer changes only
    by a restore of the ledger or a correction of dates (`epoch.state_of`).
    """

    def __init__(self, pool: asyncpg.Pool, replica: Replica | None = None) -> None:
        """Args:
        pool: connections to the ledger's database.
        replica: read replica; transfers are read from it first. Accounts change, so they are always read from the
            primary.
        """
        self._pool = pool
        self._replica = replica

    async def ping(self) -> None:
        """Check that the database has the table `accounts`, accepts writes, and has the same time as this process.

        Raises:
            Unavailable: the database is unreachable.
            ReadOnlyDatabase: the database refuses writes.
            ClockSkew: the clocks of the database and of this process differ by more than 5 s.
        """
        await ping(self._pool, LABEL, _PING)

    async def get_accounts(self, ids: Iterable[UUID]) -> dict[UUID, Account]:
        """Return the accounts with these ids, by id. Ids without an account are left out."""
        return (await self.get_accounts_and_epoch(ids))[0]

    async def get_accounts_and_epoch(self, ids: Iterable[UUID]) -> tuple[dict[UUID, Account], str | None]:
        """Return the accounts with these ids, by id, and the ledger's epoch; None if no account exists."""
        async with connection(self._pool) as session:
            rows = await session.fetch(_ACCOUNTS_AND_EPOCH, list(ids))
        return {row["id"]: account_from_row(row) for row in rows}, rows[0]["epoch"] if rows else None

    async def get_account(self, account_id: UUID) -> tuple[Account, str] | None:
        """Return an account and the ledger's epoch; None if the account does not exist."""
        async with connection(self._pool) as session:
            row = await session.fetchrow(_ACCOUNT_AND_EPOCH, account_id)
        return None if row is None else (account_from_row(row), row["epoch"])

    async def get_balances_at(self, requests: Sequence[BalanceRequest]) -> list[BalanceAt | None]:
        """Return a balance for each request, in the same order; None if the account does not exist."""
        async with connection(self._pool) as session:
            rows = await session.fetch(
                _BALANCES_AT,
                [each.account_id for each in requests],
                [each.version for each in requests],
                [each.time for each in requests],
            )
        found = {
            row["number"]: BalanceAt(Money(row["balance"], row["currency"]), row["version"], row["occurred_at"])
            for row in rows
        }
        return [found.get(number) for number in range(1, len(requests) + 1)]

    async def list_accounts(
        self, owner_id: str, after: UUID | None, limit: int, before: UUID | None = None
    ) -> list[Account]:
        """List the owner's accounts in id order.

        Args:
            owner_id: owner of the accounts.
            after: lists the accounts whose ids are above this one; None: from the first account.
            limit: maximum number of accounts.
            before: lists the last of the accounts whose ids are below this one instead.
        """
        async with connection(self._pool) as session:
            if before is not None:
                query = f"{ACCOUNT} WHERE owner_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3"
                return [account_from_row(row) for row in reversed(await session.fetch(query, owner_id, before, limit))]
            query = f"{ACCOUNT} WHERE owner_id = $1 AND id > $2 ORDER BY id LIMIT $3"
            return [account_from_row(row) for row in await session.fetch(query, owner_id, after or _NIL_ID, limit)]

    async def get_transfers(self, ids: Iterable[UUID]) -> dict[UUID, Transfer]:
        """Return the transfers with these ids, by id. Ids without a transfer are left out."""
        wanted = set(ids)
        rows = await self._fetch_from_replica(_TRANSFERS_BY_ID, list(wanted))
        if missing := wanted - {row["id"] for row in rows}:
            async with connection(self._pool) as session:
                rows += await session.fetch(TRANSFERS_BY_ID, list(missing))
        return {row["id"]: transfer_from_row(row) for row in rows}

    async def list_transfers_with_reference(
        self, sender_id: UUID, reference: str, after: UUID | None, limit: int
    ) -> list[Transfer]:
        """List the transfers from an account that have a reference, above the id `after`, in id order."""
        async with connection(self._pool) as session:
            rows = await session.fetch(_TRANSFERS_WITH_REFERENCE, sender_id, reference, after or _NIL_ID, limit)
        return [transfer_from_row(row) for row in rows]

    async def list_versions(self, after: UUID | None, limit: int) -> list[tuple[UUID, int]]:
        """List the ids and versions of the accounts whose ids are above `after`; None: from the first account."""
        async with connection(self._pool) as session:
            return [(row["id"], row["version"]) for row in await session.fetch(_VERSIONS, after or _NIL_ID, limit)]

    async def list_transfers(self, account_id: UUID, after_version: int, limit: int) -> tuple[list[Transfer], str]:
        """Return an account's transfers after a version of the account, in version order, and the ledger's epoch."""
        rows = await self._fetch_from_replica(_TRANSFERS_OF_ACCOUNT, account_id, after_version, limit)
        # Versions have no gaps, so the replica's rows are the versions directly after `after_version`.
        if (read := len(rows)) < limit:
            async with connection(self._pool) as session:
                own = await session.fetch(_TRANSFERS_OF_ACCOUNT, account_id, after_version + read, limit - read)
                if rows and state_of(own[0]) != state_of(rows[0]):
                    rows, own = [], await session.fetch(_TRANSFERS_OF_ACCOUNT, account_id, after_version, limit)
            rows += own
        return [transfer_from_row(row) for row in rows if row["id"] is not None], rows[0]["epoch"]

    async def _fetch_from_replica(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Return the rows that the replica has. Return none if there is no replica; see also `Replica.fetch`."""
        return await self._replica.fetch(query, *arguments) if self._replica else []
