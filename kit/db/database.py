"""A service's own database by SQLAlchemy Core. The ledger, where each round trip counts, talks to asyncpg itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self, cast

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from kit.db.postgres import (
    CLOSE_TIMEOUT_SECONDS,
    CONNECT_TIMEOUT_SECONDS,
    SESSION_SETTINGS,
    STATEMENT_TIMEOUT_SECONDS,
    UNAVAILABLE_ERRORS,
)
from wallet.errors import Unavailable


class Database:
    """Connections on loan. Every loan raises Unavailable when the database is away, or goes away in the middle; what
    was being written may or may not be then.
    """

    def __init__(self, engine: AsyncEngine, label: str) -> None:
        self._engine = engine
        # What is one statement needs no transaction around it, which would cost two more round trips.
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._label = label

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, service: str, label: str, max_connections: int) -> AsyncIterator[Self]:
        """Connects when first used, so that a service may start before its database.

        Args:
            url: `postgresql://…`.
            service: whose the connections are, as PostgreSQL shows them.
            label: names the database to people when it is away.
            max_connections: at most.
        """
        engine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=max_connections,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT_SECONDS,
            hide_parameters=True,
            connect_args={
                "timeout": CONNECT_TIMEOUT_SECONDS,
                "command_timeout": STATEMENT_TIMEOUT_SECONDS,
                "server_settings": {"application_name": service, **SESSION_SETTINGS},
            },
        )
        try:
            yield cls(engine, label)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await engine.dispose()

    def connections_in_use(self) -> int:
        """How many are on loan now."""
        return cast(QueuePool, self._engine.pool).checkedout()

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which each statement is a transaction."""
        async with self._on_loan(self._single) as sql:
            yield sql

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction, which is committed with the block."""
        async with self.connection() as sql, sql.begin():
            yield sql

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection outside of any transaction, for what is no statement."""
        async with self._on_loan(self._engine) as sql:
            yield sql

    @asynccontextmanager
    async def _on_loan(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        try:
            async with engine.connect() as sql:
                yield sql
        except DBAPIError as error:
            if error.connection_invalidated or isinstance(error.driver_exception, UNAVAILABLE_ERRORS):
                raise Unavailable(self._label) from error
            raise
        except (PoolTimeoutError, *UNAVAILABLE_ERRORS) as error:
            raise Unavailable(self._label) from error
