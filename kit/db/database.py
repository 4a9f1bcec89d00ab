"""Database of a service, by SQLAlchemy Core. The ledger counts round trips and uses asyncpg directly."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self, cast

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from kit.db.postgres import (
    CONNECT_TIMEOUT_SECONDS,
    UNAVAILABLE_ERRORS,
    close_pool,
    connect_options,
    raise_unavailable,
)
from wallet.errors import Unavailable


class Database:
    """Pool of connections to one PostgreSQL database.

    Its context managers raise Unavailable if the database is unavailable, or becomes so during the block. Then a write
    may or may not have been committed.
    """

    def __init__(self, engine: AsyncEngine, label: str) -> None:
        self._engine = engine
        # A single statement needs no explicit transaction, which would cost two more round trips.
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._label = label

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, service: str, label: str, max_connections: int) -> AsyncIterator[Self]:
        """Open the pool. It connects on first use, so that a service may start before its database.

        Args:
            url: `postgresql://…`.
            service: name of the service, as `pg_stat_activity` shows it.
            label: name of the database in error messages.
            max_connections: size of the pool.
        """
        engine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=max_connections,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT_SECONDS,
            hide_parameters=True,
            connect_args=connect_options(service),
        )
        try:
            yield cls(engine, label)
        finally:
            await close_pool(engine.dispose())

    def connections_in_use(self) -> int:
        """Return how many connections are in use."""
        return cast(QueuePool, self._engine.pool).checkedout()

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """Acquire a connection in autocommit mode: each statement is a transaction."""
        async with self._acquire(self._autocommit) as sql:
            yield sql

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Acquire a connection and run the block as one transaction."""
        async with self.connection() as sql, sql.begin():
            yield sql

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Acquire a connection without a transaction, for driver calls such as LISTEN."""
        async with self._acquire(self._engine) as sql:
            yield sql

    @asynccontextmanager
    async def _acquire(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        try:
            with raise_unavailable(self._label):
                async with engine.connect() as sql:
                    yield sql
        except DBAPIError as error:
            if error.connection_invalidated or isinstance(error.driver_exception, UNAVAILABLE_ERRORS):
                raise Unavailable(self._label) from error
            raise
        except PoolTimeoutError as error:
            raise Unavailable(self._label) from error
