"""Outbox: transfers that are committed and not yet published."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import asyncpg

from kit.db.pool import Connection, terminate
from subgraphs.bank.service.adapters.postgres.database import connection
from subgraphs.bank.service.adapters.postgres.epoch import EPOCH
from subgraphs.bank.service.adapters.postgres.rows import REFERENCED_TRANSFERS, TRANSFER, transfer_from_row
from subgraphs.bank.service.domain.model import Transfer

_LEADER_LOCK: Final = 7_708_141_928
_LEADER_IDLE_TIMEOUT: Final = "10s"

_OLDEST: Final = "SELECT * FROM outbox ORDER BY id LIMIT $1"

# Rows of `pg_locks` that show a held leader's lock. A migration holds an advisory lock too, with another key.
_IS_LEADER_LOCK: Final = f"""
    locktype = 'advisory' AND granted AND objsubid = 1
    AND (classid, objid) = ({_LEADER_LOCK >> 32}::oid, {_LEADER_LOCK & 0xFFFF_FFFF}::oid)
"""

# True only in the session that holds the lock. A pooler that shares sessions may run the statement in another session.
_LEADS: Final = f"EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND {_IS_LEADER_LOCK})"

_UNPUBLISHED: Final = TRANSFER.format(
    columns=f"o.id AS row_id, o.traceparent, {EPOCH} AS epoch,",
    source=REFERENCED_TRANSFERS.format(references=_OLDEST),
)
_ROWS: Final = f"""
    SELECT leader.leads, row.* FROM (SELECT {_LEADS} AS leads) AS leader
    LEFT JOIN LATERAL ({_UNPUBLISHED}) AS row ON leader.leads
    ORDER BY row.row_id
"""  # noqa: S608  only constants

_DELETE: Final = f"DELETE FROM outbox WHERE id = ANY($1) AND {_LEADS}"  # noqa: S608  only constants


class OutboxRow(NamedTuple):
    """Unpublished outbox row with its transfer.

    Attributes:
        id: id of the row.
        transfer: the transfer to publish.
        traceparent: trace context of the transfer, if sampled.
        epoch: epoch of the ledger (see `epoch.py`) when the row was read; empty for the first epoch.
    """

    id: int
    transfer: Transfer
    traceparent: str | None
    epoch: str


_BACKLOG: Final = """
    SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT 100000) AS waiting) AS count,
           coalesce((SELECT greatest(extract(epoch FROM clock_timestamp() - created_at), 0)::float8
                     FROM (SELECT transfer_id FROM outbox ORDER BY id LIMIT 1) AS oldest
                     JOIN transfers ON transfers.id = transfer_id), 0) AS seconds
"""


class LeadershipLost(Exception):
    """The session does not hold the leader's lock, or another session has deleted the rows."""


class Outbox:
    """Outbox table, read by the one replica that leads.

    The leader uses a separate session. The server ends the session, and with it the leadership, after
    `_LEADER_IDLE_TIMEOUT` without a statement: a frozen leader does not block the other replicas.
    """

    def __init__(self, session: Connection) -> None:
        self._session = session

    @classmethod
    @asynccontextmanager
    async def lead(cls, pool: asyncpg.Pool) -> AsyncIterator["Outbox | None"]:
        """Try to become leader, and lead until the end of the body. Yields None if another replica leads.

        Raises:
            Unavailable: the database is unreachable, or the server ended the session.
        """
        async with connection(pool) as session:
            may_lead = True  # also if the query fails: a session that may hold the lock must not return to the pool
            try:
                may_lead = await session.fetchval("SELECT pg_try_advisory_lock($1)", _LEADER_LOCK)
                if may_lead:
                    await session.execute(f"SET idle_session_timeout = '{_LEADER_IDLE_TIMEOUT}'")
                yield cls(session) if may_lead else None
            finally:
                if may_lead:
                    terminate(session)

    async def read(self, limit: int) -> list[OutboxRow]:
        """Return the oldest rows, in order.

        Raises:
            LeadershipLost: this session does not lead.
        """
        rows = await self._session.fetch(_ROWS, limit)
        if not rows[0]["leads"]:
            raise LeadershipLost
        return [
            OutboxRow(row["row_id"], transfer_from_row(row), row["traceparent"], row["epoch"])
            for row in rows
            if row["row_id"] is not None
        ]

    async def delete(self, ids: Sequence[int]) -> None:
        """Delete published rows.

        Raises:
            LeadershipLost: this session does not lead, or some rows are already deleted. Another leader may publish the
                rows, too.
        """
        if await self._session.execute(_DELETE, ids) != f"DELETE {len(ids)}":
            raise LeadershipLost


async def backlog(pool: asyncpg.Pool) -> tuple[int, float]:
    """Return the number of outbox rows, counted up to 100,000, and the age of the oldest in seconds.

    Raises:
        Unavailable: the database is unreachable.
    """
    async with connection(pool) as session:
        [row] = await session.fetch(_BACKLOG)
    return row["count"], row["seconds"]
