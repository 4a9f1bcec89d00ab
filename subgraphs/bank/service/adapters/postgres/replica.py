"""Read replica of the ledger's database, for transfers only."""

import asyncio
import time
from typing import Final

import asyncpg
import structlog

from subgraphs.bank.service import metrics
from subgraphs.bank.service.adapters.postgres.database import connection
from subgraphs.bank.service.adapters.postgres.epoch import STATE, state_of
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_READ_TIMEOUT_SECONDS: Final = 0.5
_PAUSE_SECONDS: Final = 5.0


class Replica:
    """Read replica for transfers. It may lag or be down; callers must read missing rows from the primary."""

    def __init__(self, pool: asyncpg.Pool, primary: asyncpg.Pool) -> None:
        """Args:
        pool: connections to the replica.
        primary: connections to the ledger's database.
        """
        self._pool = pool
        self._primary = primary
        self._paused_until = 0.0

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Return the rows that the replica has.

        Returns no rows if the states of the replica and the primary differ (`state_of`). Then the ledger was restored
        without the replica, or the replica does not have the last correction of dates yet. Also returns no rows if the
        replica fails or does not respond in half a second, and for five seconds after that.

        Args:
            query: returns transfers with the columns of `STATE`. Rows without a transfer are left out.
            arguments: arguments of the query.

        Raises:
            Unavailable: the primary is unreachable.
        """
        if time.monotonic() < self._paused_until:
            return []
        try:
            async with asyncio.timeout(_READ_TIMEOUT_SECONDS), connection(self._pool) as session:
                rows = [row for row in await session.fetch(query, *arguments) if row["id"] is not None]
        except (Unavailable, TimeoutError, asyncpg.PostgresError) as error:
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            metrics.REPLICA_READS.labels("away").inc()
            log.warning("read replica unavailable; reading from the primary", error=type(error).__name__)
            return []
        if rows:
            async with connection(self._primary) as session:
                (primary,) = await session.fetch(STATE)
            if state_of(primary) != state_of(rows[0]):
                metrics.REPLICA_READS.labels("outdated").inc()
                return []
        metrics.REPLICA_READS.labels("answered").inc()
        return rows
