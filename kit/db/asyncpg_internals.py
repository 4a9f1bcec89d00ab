"""Connections that never send a CancelRequest.

asyncpg cancels a statement on the server when its time-out ends or its task is cancelled, and has no public option to
prevent this. If PostgreSQL is waiting for a synchronous standby, it treats such a cancellation as permission to commit
on the primary alone. This module overrides the private method `_cancel_current_command`. A unit test fails if asyncpg
removes this method.
"""

import asyncio

import asyncpg


class UncancelledConnection(asyncpg.Connection):
    """Connection that is closed instead of sending a CancelRequest, so that the server completes the statement.

    A time-out of a statement, or a cancellation of its task, closes the connection. The outcome of a commit, or of a
    statement that writes, is then unknown. The connection cannot be used again; a pool replaces it.
    """

    __slots__ = ()

    def _cancel_current_command(self, waiter: object, cancel_waiter: object = None) -> None:  # noqa: ARG002
        # Close the connection later, because asyncpg still sets the statement's result after this method returns.
        asyncio.get_running_loop().call_soon(self.terminate)
