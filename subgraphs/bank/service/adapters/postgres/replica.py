"""A read replica of the ledger's database: for what never changes once it is written, and for nothing else."""

import asyncio
import time
from typing import Final

import asyncpg
import structlog

from subgraphs.bank.service import metrics
from subgraphs.bank.service.adapters.postgres.database import connection
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_PATIENCE_SECONDS: Final = 0.5
_PAUSE_SECONDS: Final = 5.0


class Replica:
    """What it lacks may be there by now, and what it has is as it will ever be: whoever asks it has to ask the ledger
    itself for whatever is missing. A replica that is away has nothing.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        """`pool` is of the replica."""
        self._pool = pool
        self._from = 0.0

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows that it has; none while it does not answer at once, nor for some seconds after. Never raises."""
        if time.monotonic() < self._from:
            return []
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS), connection(self._pool) as reading:
                rows: list[asyncpg.Record] = await reading.fetch(query, *arguments)
        except (Unavailable, TimeoutError, asyncpg.PostgresError) as error:
            self._from = time.monotonic() + _PAUSE_SECONDS
            metrics.REPLICA_READS.labels("away").inc()
            log.warning("the read replica does not answer: the ledger is asked", error=type(error).__name__)
            return []
        metrics.REPLICA_READS.labels("answered").inc()
        return rows
