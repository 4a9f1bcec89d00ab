"""Check of the database sessions of the bank's pools.

The bank keeps locks and settings in sessions, so the connections of a pool must not share sessions. The exception is a
pool behind a pooler in transaction mode: the bank takes no session locks through this pool, and the settings must be
defaults of the database role.
"""

import asyncpg

from kit.db.postgres import SessionCheck, raise_unavailable
from subgraphs.bank.service.adapters.postgres.database import LABEL, check_role_settings


class Sessions:
    """Checks the sessions of the bank's pools.

    Sessions that are not shared are checked until the first success. The settings of a shared pool are checked each
    time, because the pooler opens new sessions at any time.
    """

    def __init__(self, url: str, shared_pool: asyncpg.Pool | None) -> None:
        """Args:
        url: URL of the database for connections that must not share sessions.
        shared_pool: pool behind a pooler in transaction mode, if there is one.
        """
        self._own_sessions = SessionCheck(url)
        self._shared_pool = shared_pool

    async def check(self) -> None:
        """Check the sessions.

        Raises:
            SharedSessions: the connections of `url` share sessions.
            MissingRoleSettings: the role lacks settings for the shared pool.
            Unavailable: the database is unreachable.
        """
        with raise_unavailable(LABEL):
            await self._own_sessions.check()
        if self._shared_pool is not None:
            await check_role_settings(self._shared_pool)
