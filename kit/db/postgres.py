"""Connection options, time-outs and error mapping of all PostgreSQL pools, for SQLAlchemy and for asyncpg."""

import asyncio
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from kit.db.asyncpg_internals import UncancelledConnection
from wallet.errors import Unavailable

CONNECT_TIMEOUT_SECONDS: Final = 3.0
"""Time-out of a new connection, and of waiting for a free one in a pool."""
STATEMENT_TIMEOUT_SECONDS: Final = 5.0
CLOSE_TIMEOUT_SECONDS: Final = 1.0
"""Time-out of closing a pool: a frozen server does not confirm it."""

SESSION_SETTINGS: Final = {"transaction_timeout": "10s", "idle_in_transaction_session_timeout": "2s"}
"""Server-side time-outs, with which the server releases the locks of a frozen process."""

MAX_CLOCK_SKEW_SECONDS: Final = 5.0
"""Largest difference between the clock of a process and that of its database with which the process is ready."""


CONFIRM_COMMITS: Final = """
    SELECT pg_logical_emit_message(true, 'wallet', '') WHERE current_setting('synchronous_standby_names') <> ''
"""
"""Statement whose commit waits until the synchronous standbys, if there are any, have all earlier commits.

A commit whose wait was interrupted, as by a restart of the server, is visible although a standby may lack it. So an
answer that repeats an earlier one is sent after this statement: otherwise it could be lost with the server.
"""


class ReadOnlyDatabase(Exception):
    """The session refuses writes: the server is a standby, or the role or database is set to read-only."""


class ClockSkew(Exception):
    """The clocks of the process and of the database differ by more than `MAX_CLOCK_SKEW_SECONDS`."""


READ_ONLY_ERRORS: Final = (asyncpg.ReadOnlySQLTransactionError, ReadOnlyDatabase)
"""Errors of a session that refuses writes. It may stay read-only when new sessions are not, so pools replace it."""

REFUSED_ERRORS: Final = (
    asyncpg.InsufficientResourcesError,  # disk full, no memory, too many connections
    asyncpg.PostgresSystemError,  # an I/O error of the server's disk
)
"""Errors of a server that lacks a resource. The transaction is rolled back: its outcome is known."""

UNAVAILABLE_ERRORS: Final = (
    *REFUSED_ERRORS,
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # COMMIT on a connection that has just been lost
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # the server is no longer the primary
)
"""Errors that mean that the database is unavailable, or became unavailable during a statement."""

_DISK_ERRORS: Final = (asyncpg.DiskFullError, asyncpg.PostgresSystemError)
_DISK_ERROR_SECONDS: Final = 10.0
"""Time for which a process is not ready after its database could not write."""


class _Disk:
    """Disk of this process's database, as its errors describe it."""

    failed_at = float("-inf")


_disk: Final = _Disk()


def unavailable(label: str, error: BaseException | None) -> Unavailable:
    """Return the error for callers of a database that is unavailable.

    Args:
        label: name of the database in error messages.
        error: one of `UNAVAILABLE_ERRORS`.
    """
    if isinstance(error, _DISK_ERRORS):
        _disk.failed_at = time.monotonic()
    return Unavailable(label)


async def check_disk() -> None:
    """Readiness check: the database could write, in the last ten seconds. A probe cannot find out: a full disk still
    takes the writes that fit into allocated pages.

    Raises:
        Unavailable: it reported a full or failing disk.
    """
    if time.monotonic() - _disk.failed_at < _DISK_ERROR_SECONDS:
        raise Unavailable("the database's disk")


def connect_options(application_name: str, **server_settings: str) -> dict[str, Any]:
    """Return the keyword arguments of `asyncpg.connect`, which SQLAlchemy passes on as `connect_args`.

    Args:
        application_name: name of the service, as `pg_stat_activity` shows it.
        server_settings: further settings of the session.
    """
    return {
        "connection_class": UncancelledConnection,
        "timeout": CONNECT_TIMEOUT_SECONDS,
        "command_timeout": STATEMENT_TIMEOUT_SECONDS,
        "server_settings": {"application_name": application_name, **server_settings, **SESSION_SETTINGS},
    }


def utc_now() -> datetime:
    """Return the time of this process's clock."""
    return datetime.now(UTC)


def check_clock(now: datetime, asked_at: datetime) -> None:
    """Compare the clocks, directly after the answer to `SELECT clock_timestamp()` arrived.

    Args:
        now: the answer.
        asked_at: `utc_now()` before the query.

    Raises:
        ClockSkew: the clocks differ by more than `MAX_CLOCK_SKEW_SECONDS`.
    """
    limit = timedelta(seconds=MAX_CLOCK_SKEW_SECONDS)
    answered_at = utc_now()
    if not asked_at - limit <= now <= answered_at + limit:
        ahead = (answered_at - now).total_seconds()
        raise ClockSkew(f"the clock of this process is {ahead:+.1f} s off the database's: synchronize both by NTP")


@contextmanager
def raise_unavailable(label: str) -> Iterator[None]:
    """Raise Unavailable for the errors that mean that the database is unavailable.

    Args:
        label: name of the database in error messages.

    Raises:
        Unavailable: the database is unavailable, or became so during the block; a commit may or may not have happened.
    """
    try:
        yield
    except UNAVAILABLE_ERRORS as error:
        raise unavailable(label, error) from error


async def close_pool(closing: Awaitable[object]) -> None:
    """Wait until a pool is closed, at most `CLOSE_TIMEOUT_SECONDS`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
            await closing
