"""Connection options, time-outs and error mapping of all PostgreSQL pools, for SQLAlchemy and for asyncpg."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import structlog

from kit.db.asyncpg_internals import UncancelledConnection
from kit.runtime.server_urls import parse_postgres_url
from kit.runtime.timeouts import completes_within
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_SECONDS: Final = 3.0
"""Time-out of a new connection, and of waiting for a free one in a pool."""
STATEMENT_TIMEOUT_SECONDS: Final = 5.0
CLOSE_TIMEOUT_SECONDS: Final = 1.0
"""Time-out of closing a pool. A frozen server never confirms that a connection is closed."""

SESSION_SETTINGS: Final = {"transaction_timeout": "10s", "idle_in_transaction_session_timeout": "2s"}
"""Server-side time-outs, after which the server releases the locks of a frozen process."""

_SESSION_CHECK_ROUNDS: Final = 20
MAX_CLOCK_SKEW_SECONDS: Final = 5.0
"""Largest difference between the clocks of a process and of its database at which the process is still ready."""


CONFIRM_COMMITS: Final = """
    SELECT pg_logical_emit_message(true, 'wallet', '') WHERE current_setting('synchronous_standby_names') <> ''
"""
"""Statement whose commit waits until the synchronous standbys, if there are any, have all earlier commits.

A commit whose wait was interrupted, for example by a restart of the server, is visible although a standby may lack it.
So a service executes this statement before it repeats an earlier response: otherwise the repeated outcome could be lost
with the server.
"""


class ReadOnlyDatabase(Exception):
    """The session refuses writes: the server is a standby, or the role or database is set to read-only."""


class SharedSessions(Exception):
    """Connections share sessions of the server, because of a pooler in transaction or statement mode.

    Settings, advisory locks, LISTEN and prepared statements of a shared session do not belong to one connection.
    """


class ClockSkew(Exception):
    """The clocks of the process and of the database differ by more than `MAX_CLOCK_SKEW_SECONDS`."""


READ_ONLY_ERRORS: Final = (asyncpg.ReadOnlySQLTransactionError, ReadOnlyDatabase)
"""Errors of a session that refuses writes.

The session may stay read-only when new sessions are writable again, so pools replace its connection.
"""

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
    """Time of the last disk error of this process's database."""

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
    """Readiness check: fail for ten seconds after the database reported a full or failing disk.

    A test write would not detect a full disk, because writes that fit into allocated pages still succeed.

    Raises:
        Unavailable: the database reported such an error in the last ten seconds.
    """
    if time.monotonic() - _disk.failed_at < _DISK_ERROR_SECONDS:
        raise Unavailable("the database's disk")


def connect_options(url: str, application_name: str) -> dict[str, Any]:
    """Return the keyword arguments of `asyncpg.connect`. asyncpg reads the URL of all connections, also SQLAlchemy's.

    `server_settings` has only the name, because PgBouncer refuses other settings at the start of a session. Execute
    `set_session_statement` on each new connection instead.

    Args:
        url: `postgresql://…`, as `parse_postgres_url` accepts it.
        application_name: name of the service, as `pg_stat_activity` shows it, unless the URL has another one.
    """
    has_own_name = "application_name" in parse_postgres_url(url).parameters
    return {
        "dsn": url,
        "connection_class": UncancelledConnection,
        "timeout": CONNECT_TIMEOUT_SECONDS,
        "command_timeout": STATEMENT_TIMEOUT_SECONDS,
        "server_settings": {} if has_own_name else {"application_name": application_name},
    }


def set_session_statement(settings: Mapping[str, str] = SESSION_SETTINGS) -> str:
    """Return the statement that sets settings for the rest of a session."""
    return "".join(f"SET {name} = '{value}';" for name, value in settings.items())


async def check_sessions(url: str) -> None:
    """Check that each connection has its own session of the server: there is no pooler, or it is in session mode.

    Opens two connections and compares the server processes that serve them. It does so several times, because a pooler
    that shares sessions may by chance serve each connection with its own process a few times in a row.

    Args:
        url: `postgresql://…`.

    Raises:
        SharedSessions: the connections share sessions.
        OSError, TimeoutError, asyncpg.PostgresError: a connection failed.
    """
    options = connect_options(url, "session check") | {"statement_cache_size": 0}
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(2):
            connection = await asyncpg.connect(**options)
            stack.callback(connection.terminate)
            connections.append(connection)
        seen: list[set[int]] = [set(), set()]
        for _ in range(_SESSION_CHECK_ROUNDS):
            for connection, processes in zip(connections, seen, strict=True):
                processes.add(await connection.fetchval("SELECT pg_backend_pid()"))
    if len(seen[0]) > 1 or len(seen[1]) > 1 or seen[0] & seen[1]:
        raise SharedSessions("a pooler shares the server's sessions between connections: it is not in session mode")


class SessionCheck:
    """Runs `check_sessions` for one URL until it succeeds once. Pools await it before they change a session's state.

    Without this check, a SET through a pooler in transaction mode would stay in a session that the pooler then gives to
    other clients.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = asyncio.Lock()
        self._has_passed = False

    async def check(self) -> None:
        """Check the sessions; return at once after a success.

        Raises:
            SharedSessions, OSError, TimeoutError, asyncpg.PostgresError: see `check_sessions`.
        """
        if self._has_passed:
            return
        async with self._lock:
            if not self._has_passed:
                await check_sessions(self._url)
                self._has_passed = True


def log_failures(check: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Return a readiness check that also logs when the database becomes ready, or fails for a new reason."""
    last_reason: str | None = None

    async def logged_check() -> None:
        nonlocal last_reason
        reason = None
        try:
            await check()
        except asyncio.CancelledError:
            reason = "no response in time"
            raise
        except Exception as error:
            cause = error.__cause__ or error
            reason = f"{type(cause).__name__}: {cause}"
            raise
        finally:
            if reason != last_reason:
                last_reason = reason
                if reason:
                    log.warning("database not ready", error=reason)
                else:
                    log.info("database ready")

    return logged_check


def utc_now() -> datetime:
    """Return the time of this process's clock."""
    return datetime.now(UTC)


def check_clock(now: datetime, asked_at: datetime) -> None:
    """Compare the clocks. Call it as soon as the response to `SELECT clock_timestamp()` has arrived.

    Args:
        now: the time in the response.
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
    await completes_within(CLOSE_TIMEOUT_SECONDS, closing)
