"""Alembic set-up that all services with a PostgreSQL database share."""

import asyncio
import time
from importlib import import_module
from typing import Final

import asyncpg
import structlog
from alembic import command, context
from alembic.config import Config
from pydantic import SecretStr
from sqlalchemy import Connection, MetaData, pool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from kit.db.asyncpg_internals import UncancelledConnection
from kit.db.postgres import UNAVAILABLE_ERRORS
from kit.runtime.backoff import Backoff
from kit.runtime.job import JobError

log = structlog.get_logger(__name__)

_LOCK: Final = 7_708_141_927
"""Advisory lock that serializes migrations. The number is arbitrary and must not change."""


_LOCK_TIMEOUT: Final = "1s"
"""Maximum time that a migration waits for a table's lock.

Statements of the services that use this table wait behind the migration.
"""
_REFUSALS: Final = (*UNAVAILABLE_ERRORS, asyncpg.InsufficientPrivilegeError, asyncpg.LockNotAvailableError)
"""Errors of a statement that are no fault of the migration."""
_ATTEMPTS: Final = 30
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 10.0


def config(package: str, url: str) -> Config:
    """Return Alembic's configuration for a package of migrations.

    Args:
        package: dotted name of the package.
        url: `postgresql://…`.
    """
    settings = Config()
    settings.set_main_option("path_separator", "os")
    settings.set_main_option("script_location", import_module(package).__path__[0])
    settings.attributes["url"] = url
    return settings


class NotConnected(Exception):
    """The server does not respond, or refuses the connection. The message has the reason, without the password."""


def run_upgrade(package: str, setting: str, url: SecretStr) -> None:
    """Migrate a database as a job; see `upgrade`.

    Args:
        package: dotted name of the package of migrations.
        setting: name of the setting that has the URL.
        url: `postgresql://…`.

    Raises:
        JobError: the server does not respond or refuses the connection or a statement. The job can be run again.
    """
    try:
        upgrade(package, url.get_secret_value())
    except NotConnected as error:
        raise JobError(
            f"{setting}: cannot connect to the database; check that the server runs and that the URL is right: {error}"
        ) from error
    except DBAPIError as error:
        reason = error.driver_exception
        if not isinstance(reason, _REFUSALS):
            raise
        raise JobError(
            f"{setting}: the database refused a migration or became unavailable; nothing was changed unless the "
            f"connection was lost at the end; run the job again when the cause is removed: {_describe(reason)}"
        ) from error


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def upgrade(package: str, url: str) -> None:
    """Migrate the database to the newest schema. Safe to repeat; concurrent runs wait for each other.

    The services may run during the migration. While a migration waits for the lock of a table, statements of the
    services wait behind the migration. So a migration that does not get a lock in time is rolled back and tried again
    after a pause, for a few minutes.

    Args:
        package: dotted name of the package of migrations, such as `subgraphs.bank.service.migrations`.
        url: `postgresql://…`.

    Raises:
        NotConnected: the server does not respond or refuses the connection.
        sqlalchemy.exc.DBAPIError: a statement failed, or the last attempt did not get a lock either. Nothing was
        changed.
    """
    backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
    for left in reversed(range(_ATTEMPTS)):
        try:
            command.upgrade(config(package, url), "head")
        except DBAPIError as error:
            if not left or not isinstance(error.driver_exception, asyncpg.LockNotAvailableError):
                raise
            pause = backoff.next_delay()
            log.warning("migration waits for other transactions", pause_seconds=round(pause, 2), attempts_left=left)
            time.sleep(pause)
        else:
            return


def run_migrations(metadata: MetaData) -> None:
    """Run the migrations; called by `env.py` of each package of migrations.

    Args:
        metadata: tables as the code defines them; Alembic compares the database with them.
    """
    url = context.config.attributes["url"]

    def migrate(connection: Connection) -> None:
        context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
        with context.begin_transaction():
            connection.execute(text("SET LOCAL transaction_timeout = 0"))  # the role may have its own time-out
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
            context.run_migrations()

    async def open_connection() -> asyncpg.Connection:
        try:
            # An interrupted migration may be committing.
            return await asyncpg.connect(url, connection_class=UncancelledConnection)
        except (*UNAVAILABLE_ERRORS, asyncpg.PostgresError) as error:
            raise NotConnected(_describe(error)) from error

    async def connect() -> None:
        engine = create_async_engine("postgresql+asyncpg://", async_creator=open_connection, poolclass=pool.NullPool)
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
            await connection.commit()
        await engine.dispose()

    asyncio.run(connect())
