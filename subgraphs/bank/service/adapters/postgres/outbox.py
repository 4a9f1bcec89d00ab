"""What is committed and not yet published."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import asyncpg

from subgraphs.bank.service.adapters.postgres.database import Connection, connection
from subgraphs.bank.service.adapters.postgres.rows import REFERRED, TRANSFER, transfer_of
from subgraphs.bank.service.domain.model import Transfer

_LEADER_LOCK: Final = 7_708_141_928
_LEADER_SILENCE: Final = "10s"

_ROWS: Final = "SELECT * FROM outbox ORDER BY id LIMIT $1"

_WAITING: Final = (
    TRANSFER.format(columns="o.id AS row_id, o.traceparent,", source=REFERRED.format(references=_ROWS))
    + "ORDER BY o.id"
)


class Waiting(NamedTuple):
    """A row, what it is about, and where in a trace that was made, if anybody follows it."""

    id: int
    transfer: Transfer
    traceparent: str | None


_BACKLOG: Final = """
    SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT 100000) AS waiting) AS count,
           coalesce((SELECT greatest(extract(epoch FROM clock_timestamp() - created_at), 0)::float8
                     FROM (SELECT transfer_id FROM outbox ORDER BY id LIMIT 1) AS oldest
                     JOIN transfers ON transfers.id = transfer_id), 0) AS seconds
"""


class Outbox:
    """What is committed and not yet published, read by one leader among the replicas.

    It lives on one session of its own. The server ends the session, and with it the leadership, when it hears nothing
    from it for `_LEADER_SILENCE`: a frozen leader does not stop the others.
    """

    def __init__(self, session: Connection) -> None:
        self._session = session

    @classmethod
    @asynccontextmanager
    async def lead(cls, pool: asyncpg.Pool) -> AsyncIterator["Outbox | None"]:
        """The outbox, if nobody else leads; its leadership ends with the body.

        Raises:
            Unavailable: the database is away, or the session was ended.
        """
        async with connection(pool) as session:
            may_lead = True  # until it is known not to: a session that may have the lock does not go back to the pool
            try:
                may_lead = await session.fetchval("SELECT pg_try_advisory_lock($1)", _LEADER_LOCK)
                if may_lead:
                    await session.execute(f"SET idle_session_timeout = '{_LEADER_SILENCE}'")
                yield cls(session) if may_lead else None
            finally:
                if may_lead:
                    session.terminate()

    async def next(self, limit: int) -> list[Waiting]:
        """The oldest rows, in order."""
        rows = await self._session.fetch(_WAITING, limit)
        return [Waiting(row["row_id"], transfer_of(row), row["traceparent"]) for row in rows]

    async def remove(self, rows: Sequence[int]) -> None:
        """Forgets rows that were delivered."""
        await self._session.execute("DELETE FROM outbox WHERE id = ANY($1)", rows)


async def waiting(pool: asyncpg.Pool) -> tuple[int, float]:
    """How many rows wait, counted up to 100,000, and for how many seconds the oldest has.

    Raises:
        Unavailable: the database is away.
    """
    async with connection(pool) as reading:
        [row] = await reading.fetch(_BACKLOG)
    return row["count"], row["seconds"]
