"""Check of the database sessions of the bank's pools.

The bank holds locks and settings in sessions that it does not share. A pool behind a pooler in transaction mode shares
its sessions, so its role must have the settings.
"""

from typing import Final

import asyncpg

from kit.db.postgres import check_sessions, raise_unavailable
from subgraphs.bank.service.adapters.postgres.database import check_role_settings

_LABEL: Final = "the ledger's database"


class Sessions:
    """Checks the sessions of the bank's pools, until the first success."""

    def __init__(self, url: str, shared_pool: asyncpg.Pool | None) -> None:
        """Args:
        url: database of the pool that must not share its sessions.
        shared_pool: pool behind a pooler in transaction mode, if there is one.
        """
        self._url = url
        self._shared_pool = shared_pool
        self._are_valid = False

    async def check(self) -> None:
        """Check the sessions.

        Raises:
            SharedSessions: the connections of `url` share sessions.
            MissingRoleSettings: the role lacks settings for the shared pool.
            Unavailable: the database is unreachable.
        """
        if self._are_valid:
            return
        with raise_unavailable(_LABEL):
            await check_sessions(self._url)
        if self._shared_pool is not None:
            await check_role_settings(self._shared_pool)
        self._are_valid = True
