"""SQL that finds operations dated in the future, and gives them new dates."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from kit.db.pool import Connection, transaction
from subgraphs.bank.service.adapters.postgres.database import LABEL, connection
from subgraphs.bank.service.domain.redating import DatedTransfer
from wallet.errors import Unavailable

_LOCK_SECONDS: Final = 5
_STATEMENT_SECONDS: Final = 120.0
_CHUNK: Final = 5_000

_ACCOUNTS: Final = """
    SELECT id, least(created_at, $1) AS opened_at FROM accounts WHERE greatest(created_at, updated_at) > $1
"""

# Reads the operations of each account backwards, from the last version to the first version that is not dated in the
# future. Dates never decrease from version to version, so this finds all operations in the future.
_ENTRIES: Final = """
    WITH RECURSIVE walk AS (
        SELECT a.id AS account_id, a.version, t.id, t.created_at
        FROM accounts a,
        LATERAL (SELECT * FROM entries WHERE account_id = a.id AND version = a.version OFFSET 0) AS e,
        LATERAL (SELECT * FROM transfers WHERE id = e.transfer_id OFFSET 0) AS t
        WHERE a.id = ANY($1)
        UNION ALL
        SELECT w.account_id, e.version, t.id, t.created_at
        FROM walk w,
        LATERAL (SELECT * FROM entries WHERE account_id = w.account_id AND version = w.version - 1 OFFSET 0) AS e,
        LATERAL (SELECT * FROM transfers WHERE id = e.transfer_id OFFSET 0) AS t
        WHERE w.created_at > $2
    )
    SELECT account_id, id, created_at FROM walk
"""
_TRANSFERS: Final = """
    SELECT id, created_at, sender_id, sender_version, recipient_id, recipient_version FROM transfers
    WHERE id = ANY($1)
"""
_RECORD: Final = """
    INSERT INTO redatings (transfer_id, old_created_at, new_created_at, redated_by)
    SELECT t.id, t.created_at, new.created_at, $3
    FROM unnest($1::uuid[], $2::timestamptz[]) AS new (id, created_at),
    LATERAL (SELECT * FROM transfers WHERE id = new.id OFFSET 0) AS t
"""
_SET_DATES: Final = """
    UPDATE transfers SET created_at = new.created_at
    FROM unnest($1::uuid[], $2::timestamptz[]) AS new (id, created_at)
    WHERE transfers.id = new.id
"""
_SET_ACCOUNT_DATES: Final = """
    UPDATE accounts SET created_at = least(accounts.created_at, new.at),
        updated_at = CASE status WHEN 'CLOSED' THEN $3 ELSE new.at END
    FROM unnest($1::uuid[], $2::timestamptz[]) AS new (id, at)
    WHERE accounts.id = new.id
"""


class FutureOperations(NamedTuple):
    """Operations that are dated in the future.

    Attributes:
        now: time of the database's clock.
        transfers: transfers that are dated later than `now`.
        last_dates: for each account that was opened or changed later than `now`, the date of its last operation that is
            not later than `now`. If there is no such operation, the date of its opening, or `now` if that is earlier.
    """

    now: datetime
    transfers: Sequence[DatedTransfer]
    last_dates: Mapping[UUID, datetime]


class Redatings:
    """Finds and changes dates on a separate session, in one transaction."""

    def __init__(self, session: Connection) -> None:
        self._session = session

    @classmethod
    @asynccontextmanager
    async def begin(cls, pool: asyncpg.Pool, *, writes: bool) -> AsyncIterator["Redatings"]:
        """Open a session; commit at the end of the body.

        Args:
            pool: connections to the ledger's database.
            writes: True blocks all changes of accounts by other transactions until the end of the body. Such changes
                wait, and fail at their time-outs. Reads continue.

        Raises:
            Unavailable: the database is unreachable, or a statement failed. Nothing was committed, unless the
                connection was lost during the commit: then the outcome is unknown.
        """
        async with connection(pool) as session:
            try:
                await session.execute(f"""
                    SET transaction_timeout = 0;
                    SET idle_in_transaction_session_timeout = 0;
                    SET lock_timeout = '{_LOCK_SECONDS}s';
                """)
                async with transaction(session):
                    if writes:
                        await session.execute("LOCK TABLE accounts IN EXCLUSIVE MODE", timeout=2 * _LOCK_SECONDS)
                    yield cls(session)
            except asyncpg.PostgresError as error:
                raise Unavailable(LABEL) from error
            finally:
                session.terminate()  # with these settings it must not return to the pool

    async def find(self) -> FutureOperations:
        """Return the operations that are dated later than now."""
        now = await self._session.fetchval("SELECT clock_timestamp()")
        rows = await self._session.fetch(_ACCOUNTS, now, timeout=_STATEMENT_SECONDS)
        last_dates = {row["id"]: row["opened_at"] for row in rows}
        ids = set[UUID]()
        for row in await self._session.fetch(_ENTRIES, list(last_dates), now, timeout=_STATEMENT_SECONDS):
            if row["created_at"] > now:
                ids.add(row["id"])
            else:
                last_dates[row["account_id"]] = row["created_at"]
        transfers = await self._session.fetch(_TRANSFERS, list(ids), timeout=_STATEMENT_SECONDS)
        return FutureOperations(now, [DatedTransfer(*row) for row in transfers], last_dates)

    async def set_transfer_dates(self, dates: Mapping[UUID, datetime], redated_by: str) -> AsyncIterator[int]:
        """Change the dates of transfers in chunks and record each change. Yield the number of changes after each chunk.

        Args:
            dates: new date by transfer id, earlier than the old date.
            redated_by: principal of the administrator, which is recorded.
        """
        done = 0
        for chunk in _chunks(dates):
            ids, values = list(chunk), list(chunk.values())
            await self._session.execute(_RECORD, ids, values, redated_by, timeout=_STATEMENT_SECONDS)
            await self._session.execute(_SET_DATES, ids, values, timeout=_STATEMENT_SECONDS)
            done += len(chunk)
            yield done

    async def end(self) -> None:
        """Record the time of the redating, so that no transfers are read from replicas without the new dates."""
        await self._session.execute("UPDATE ledger_epoch SET redated_at = clock_timestamp()")

    async def set_account_dates(self, dates: Mapping[UUID, datetime], now: datetime) -> None:
        """Set the time of each account's last change. If the account's opening is dated later, it gets the same time.

        Args:
            dates: date of the last operation by account id.
            now: time of the last change of closed accounts, because the true time of the closing is unknown.
        """
        for chunk in _chunks(dates):
            ids, values = list(chunk), list(chunk.values())
            await self._session.execute(_SET_ACCOUNT_DATES, ids, values, now, timeout=_STATEMENT_SECONDS)


def _chunks(dates: Mapping[UUID, datetime]) -> Iterator[dict[UUID, datetime]]:
    items = iter(dates.items())
    while chunk := dict(islice(items, _CHUNK)):
        yield chunk
