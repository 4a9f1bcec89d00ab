"""Epoch of the ledger: the id of one uninterrupted sequence of operations.

A restore from an older backup begins another epoch.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

import asyncpg
import structlog
from uuid_utils.compat import uuid7

from kit.db.pool import Connection
from subgraphs.bank.service.adapters.postgres.database import connection
from subgraphs.bank.service.domain.model import EpochRecord, HeldPosting, LedgerIdentity

log = structlog.get_logger(__name__)

EPOCH: Final = "(SELECT epoch FROM ledger_epoch)"
"""SQL expression of the current epoch, for statements that return rows of the ledger together with the epoch."""

STATE: Final = "(SELECT epoch, redated_at FROM ledger_epoch)"
"""SQL expression of the state that a read replica must have in common with the primary; see `state_of`."""

_IDENTITY: Final = """
    SELECT epoch, past_epochs, system_identifier,
           left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) AS timeline
    FROM ledger_epoch, pg_control_system()
"""

_FIRST_ABSENT: Final = """
    SELECT held.account_id, held.version, held.transfer_id
    FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS held (account_id, version, transfer_id)
    WHERE NOT EXISTS (
        SELECT FROM entries
        WHERE account_id = held.account_id AND version = held.version AND transfer_id = held.transfer_id
        OFFSET 0
    )
    LIMIT 1
"""

_REPLACE: Final = """
    UPDATE ledger_epoch
    SET epoch = $1, past_epochs = past_epochs || epoch, began_at = clock_timestamp(), reason = $2
    WHERE epoch = $3
"""

_ADD_PAST_EPOCHS: Final = """
    UPDATE ledger_epoch
    SET past_epochs = past_epochs || ARRAY (
        SELECT id FROM unnest($1::text[]) WITH ORDINALITY AS reader (id, number)
        WHERE id <> epoch AND id <> ALL (past_epochs)
        ORDER BY number
    )
"""


class Epochs:
    """Reads and replaces the epoch, always on the primary.

    A reader is a service that stores operations of the ledger, such as analytics. The epoch that a reader follows is
    the epoch to which its stored operations belong.

    Raises:
        Unavailable: the database is unreachable. A retry is safe.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def verify(
        self, reader_epoch: str, past_epochs: Collection[str], postings: Sequence[HeldPosting]
    ) -> LedgerIdentity:
        """Compare a reader's postings and epochs with the ledger. If they contradict the ledger, begin a new epoch.

        The reader's epochs that the ledger lacks are added to the ledger's past epochs: a restored ledger lacks the
        epochs that began after its backup. A retry is safe.

        Args:
            reader_epoch: epoch that the reader follows.
            past_epochs: epochs before `reader_epoch`, oldest first. If the ledger's epoch is one of them, the ledger
                was restored from a backup.
            postings: postings of `reader_epoch` that the reader holds.

        Returns:
            Identity of the ledger after the comparison.
        """
        async with connection(self._pool) as session:
            identity = await _identity(session)
            if identity.epoch == reader_epoch:
                reason = await _find_contradiction(session, postings)
            elif identity.epoch in past_epochs:
                reason = f"a reader has followed the later epoch {reader_epoch}"
            else:
                reason = None
            if reason is not None:
                await _replace(session, identity.epoch, reason)
                identity = await _identity(session)
            reader_epochs = list(dict.fromkeys((*past_epochs, reader_epoch)))
            if not {identity.epoch, *identity.past_epochs}.issuperset(reader_epochs):
                await session.execute(_ADD_PAST_EPOCHS, reader_epochs)
                identity = await _identity(session)
            return identity

    async def read(self) -> EpochRecord:
        """Return the current epoch."""
        async with connection(self._pool) as session:
            (row,) = await session.fetch("SELECT epoch, began_at, reason FROM ledger_epoch")
        return EpochRecord(**row)

    async def replace(self, expected: str, reason: str) -> bool:
        """Begin a new epoch if the current one is `expected`. Return whether a new epoch began."""
        async with connection(self._pool) as session:
            return await _replace(session, expected, reason)


def state_of(row: asyncpg.Record) -> tuple[str, datetime | None]:
    """Return the state in a row: the epoch, and the time of the last redating.

    Committed transfers change only by a restore of the ledger or by a redating (a correction of dates), and both change
    the state. A replica with the primary's state may lack transfers, but each transfer that it has is also in the
    primary, with the same date.
    """
    return row["epoch"], row["redated_at"]


async def _identity(session: Connection) -> LedgerIdentity:
    (row,) = await session.fetch(_IDENTITY)
    return LedgerIdentity(row["epoch"], f"{row['system_identifier']}/{row['timeline']}", tuple(row["past_epochs"]))


async def _find_contradiction(session: Connection, postings: Sequence[HeldPosting]) -> str | None:
    """Return a description of a posting that the ledger lacks; None if it has all postings."""
    absent = await session.fetchrow(
        _FIRST_ABSENT,
        [each.account_id for each in postings],
        [each.version for each in postings],
        [each.transfer_id for each in postings],
    )
    if absent is None:
        return None
    return (
        f"a reader holds transfer {absent['transfer_id']} as version {absent['version']} "
        f"of account {absent['account_id']}"
    )


async def _replace(session: Connection, expected: str, reason: str) -> bool:
    """Begin a new epoch unless the current one is no longer `expected`. Return whether a new epoch began."""
    new = str(uuid7())
    is_replaced: bool = await session.execute(_REPLACE, new, reason, expected) == "UPDATE 1"
    if is_replaced:
        log.warning("ledger epoch replaced", epoch=new, previous=expected, reason=reason)
    return is_replaced
