"""Read replica of the ledger's database, for immutable rows only."""

import asyncio
import time
from typing import Final

import asyncpg
import structlog

from subgraphs.bank.service import metrics
from subgraphs.bank.service.adapters.postgres.database import connection
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_READ_TIMEOUT_SECONDS: Final = 0.5
_PAUSE_SECONDS: Final = 5.0


class Replica:
    """Read replica for immutable rows. It may lag or be down; callers must read missing rows from the primary."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Args:
        pool: connections to the replica.
        """
        self._pool = pool
        self._paused_until = 0.0

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Return the rows that the replica has. Never raises.

        After an error, or without a response in half a second, it returns no rows, and reads nothing for five seconds.
        """
        if time.monotonic() < self._paused_until:
            return []
        try:
            async with asyncio.timeout(_READ_TIMEOUT_SECONDS), connection(self._pool) as session:
                rows: list[asyncpg.Record] = await session.fetch(query, *arguments)
        except (Unavailable, TimeoutError, asyncpg.PostgresError) as error:
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            metrics.REPLICA_READS.labels("away").inc()
            log.warning("read replica unavailable; reading from the primary", error=type(error).__name__)
            return []
        metrics.REPLICA_READS.labels("answered").inc()
        return rows
