"""Database of a service, accessed with SQLAlchemy Core. Bank and card use asyncpg directly (`kit.db.pool`)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Self, cast

import asyncpg
from sqlalchemy import AdaptedConnection, ExceptionContext, TableClause, event, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from kit.db.postgres import (
    CONNECT_TIMEOUT_SECONDS,
    READ_ONLY_ERRORS,
    UNAVAILABLE_ERRORS,
    ReadOnlyDatabase,
    SessionCheck,
    SharedSessions,
    check_clock,
    close_pool,
    connect_options,
    raise_unavailable,
    set_session_statement,
    unavailable,
    utc_now,
)
from wallet.errors import Unavailable


class Database:
    """Pool of connections to one PostgreSQL database.

    Its context managers raise Unavailable if the database is unavailable. If it becomes unavailable during the block, a
    write may or may not have been committed.
    """

    def __init__(self, engine: AsyncEngine, sessions: SessionCheck, label: str) -> None:
        self._engine = engine
        # A single statement needs no explicit transaction, which would cost two more round trips.
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._sessions = sessions
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
            "postgresql+asyncpg://",
            async_creator=partial(asyncpg.connect, **connect_options(url, service)),
            pool_size=max_connections,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT_SECONDS,
            hide_parameters=True,
        )
        sessions = SessionCheck(url)

        async def set_session(connection: asyncpg.Connection) -> None:
            await sessions.check()
            await connection.execute(set_session_statement())

        @event.listens_for(engine.sync_engine, "connect")
        def on_connect(connection: AdaptedConnection, _: object) -> None:
            connection.run_async(set_session)

        event.listen(engine.sync_engine, "handle_error", _replace_read_only_connections)
        try:
            yield cls(engine, sessions, label)
        finally:
            await close_pool(engine.dispose())

    def connections_in_use(self) -> int:
        """Return the number of connections in use."""
        return cast(QueuePool, self._engine.pool).checkedout()

    async def check(self, table: TableClause) -> None:
        """Check that the database is ready: it has the table, accepts writes, and its clock agrees with ours.

        Raises:
            Unavailable: the database is unavailable.
            ReadOnlyDatabase: the database refuses writes.
            ClockSkew: the clocks differ.
            SharedSessions: a pooler shares sessions between connections, which breaks LISTEN and prepared statements.
        """
        with raise_unavailable(self._label):
            await self._sessions.check()
        async with self.statement() as sql:
            asked_at = utc_now()
            check_clock((await sql.execute(select(func.clock_timestamp()))).scalar_one(), asked_at)
            try:
                await sql.execute(select(table).limit(0).with_for_update())  # locks no row; fails if read-only
            except DBAPIError as error:
                if _is_read_only(error):
                    raise ReadOnlyDatabase from error
                raise

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
                raise unavailable(self._label, error.driver_exception) from error
            raise
        except (PoolTimeoutError, SharedSessions) as error:
            raise Unavailable(self._label) from error


def _is_read_only(error: DBAPIError) -> bool:
    return isinstance(error.driver_exception, READ_ONLY_ERRORS)


def _replace_read_only_connections(context: ExceptionContext) -> None:
    """Replace all connections of the pool when one refuses writes.

    The others may have read-only sessions too.
    """
    if isinstance(context.sqlalchemy_exception, DBAPIError) and _is_read_only(context.sqlalchemy_exception):
        context.is_disconnect = True
