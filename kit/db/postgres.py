"""What holds for every connection to PostgreSQL, and what it fails with when its server is away."""

from typing import Final

import asyncpg

CONNECT_TIMEOUT_SECONDS: Final = 3.0
STATEMENT_TIMEOUT_SECONDS: Final = 5.0
CLOSE_TIMEOUT_SECONDS: Final = 1.0
"""How long a server is waited for to say good-bye. One that is frozen does not."""

SESSION_SETTINGS: Final = {"transaction_timeout": "10s", "idle_in_transaction_session_timeout": "2s"}
"""The server ends what a frozen process holds: a transaction after its time-out, however it came to hold it."""

UNAVAILABLE_ERRORS: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a COMMIT on a connection that was lost a moment before
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.TransactionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a primary that is none any more
)
"""What a database that is away, or goes away in the middle, fails with."""
