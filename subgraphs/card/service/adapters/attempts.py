"""SQL of the attempts to use a card, which the limits of declined cards count."""

from hashlib import blake2b
from typing import Final
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from kit.db.pool import transaction
from subgraphs.card.service.adapters.database import WITH_KEY, connection
from subgraphs.card.service.domain import declines
from subgraphs.card.service.domain.declines import (
    AttemptState,
    Block,
    DeclineLimits,
    LimitKind,
    NewAttempt,
    NoRoomYet,
    Room,
    StoredAttempt,
    Subject,
    Verdict,
)

_LIMITED_BY: Final = {
    LimitKind.CUSTOMER: "principal",
    LimitKind.ADDRESS: "address",
    LimitKind.CARD: "card",
}
"""Column by which each limit counts attempts. A row without a value does not count for the limit."""

# The locks are held until the commit. This commit need not wait for the disk, because the later commit of `admit` or
# `record_decline` waits and also flushes the earlier records of the WAL.
_LOCK: Final = """
    SELECT set_config('synchronous_commit', 'off', true);
    SELECT pg_advisory_xact_lock(key) FROM unnest('{{{keys}}}'::bigint[]) AS key;
"""

_RECENT: Final = "since > clock_timestamp() - make_interval(secs => $1::float8)"
"""SQL condition for attempts that are recent enough to count for a limit. Argument: `_longest_seconds`."""

# An attempt in the future counts as an attempt of this moment.
_ATTEMPTS: Final = f"""
    SELECT id, principal, idempotency_key, address, card, state,
           greatest(extract(epoch FROM clock_timestamp() - since), 0)::float8 AS age_seconds
    FROM card_attempts
    WHERE {_RECENT}
"""  # noqa: S608  only constants

_SAME_SUBJECT: Final = f"{_ATTEMPTS} AND (principal = $2 OR address = $3 OR card = $4)"

_RESERVE: Final = f"""
    INSERT INTO card_attempts (id, principal, idempotency_key, address, card)
    SELECT $3::uuid, $1::text, $4::text, $5::text, $6::bytea WHERE NOT EXISTS (SELECT FROM top_ups WHERE {WITH_KEY})
"""  # noqa: S608  only constants

_DECLINE: Final = "UPDATE card_attempts SET state = 'DECLINED', since = clock_timestamp() WHERE id = $1"
_END: Final = "DELETE FROM card_attempts WHERE id = $1 AND state = 'TOKENIZING'"

_FREQUENT: Final = f"""
    {{column}} IN (
        SELECT {{column}} FROM card_attempts WHERE state = 'DECLINED' AND {_RECENT} AND {{column}} IS NOT NULL
        GROUP BY {{column}} HAVING count(*) >= {{minimum}}
    )
"""  # noqa: S608  only constants
_DECLINED: Final = f"""
    {_ATTEMPTS} AND state = 'DECLINED' AND (
        {_FREQUENT.format(column="principal", minimum="$2")}
        OR {_FREQUENT.format(column="address", minimum="$3")}
        OR {_FREQUENT.format(column="card", minimum="$4")}
    )
"""

_OF_BLOCK: Final = """
    SELECT id, principal FROM card_attempts
    WHERE {column} = (SELECT {column} FROM card_attempts WHERE id = $1) AND state = 'DECLINED'
    FOR UPDATE
"""
_RECORD_LIFT: Final = """
    INSERT INTO decline_lifts (id, kind, customers, declines, lifted_by) VALUES ($1, $2, $3, $4, $5)
"""
_LIFT: Final = "UPDATE card_attempts SET {column} = NULL WHERE id = ANY($1)"

_REDATE: Final = """
    UPDATE card_attempts SET since = clock_timestamp()
    WHERE id IN (SELECT id FROM card_attempts WHERE since > clock_timestamp() FOR UPDATE SKIP LOCKED)
"""
_DELETE_OLD: Final = f"DELETE FROM card_attempts WHERE NOT ({_RECENT})"  # noqa: S608  only constants


class AttemptRepository:
    """Stored attempts to use a card. `Repository` ends an attempt in the statement that saves its top-up.

    Every method raises Unavailable if the database is unavailable. It is then unknown whether a change was committed.
    All methods are safe to repeat.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def reserve(self, attempt: NewAttempt, limits: DeclineLimits) -> Verdict:
        """Store an attempt to use a card if the limits of declined cards have room for it (`declines.judge`).

        Attempts of one customer, address or card are decided one after another, so that they cannot exceed a limit
        together. The verdict is also NoRoomYet if a top-up with the attempt's idempotency key exists already.
        """
        key, subjects = attempt.key, {kind: attempt.subject(kind) for kind in LimitKind}
        # Sorted, so that two attempts do not deadlock.
        locks = sorted(_lock_key(kind, subject) for kind, subject in subjects.items() if subject is not None)
        first = _LOCK.format(keys=",".join(map(str, locks)))
        async with connection(self._pool) as session, transaction(session, first):
            rows = await session.fetch(_SAME_SUBJECT, _longest_seconds(limits), *subjects.values())
            verdict = declines.judge(attempt, map(_attempt_from_row, rows), limits)
            if not isinstance(verdict, Room):
                return verdict
            stored = await session.execute(
                _RESERVE, key.principal, key.forms, attempt.id, key.key, attempt.address, attempt.card
            )
        return verdict if stored == "INSERT 0 1" else NoRoomYet()

    async def record_decline(self, attempt_id: UUID) -> None:
        """Count an attempt whose card the acquirer has refused to tokenize."""
        async with connection(self._pool) as session:
            await session.execute(_DECLINE, attempt_id)

    async def end_attempt(self, attempt_id: UUID) -> None:
        """Delete an attempt that led to no top-up. An attempt that led to a top-up is not changed."""
        async with connection(self._pool) as session:
            await session.execute(_END, attempt_id)

    async def list_blocks(self, limits: DeclineLimits) -> list[Block]:
        """Return the limits of declined cards that are reached now."""
        fewest = (limits.per_customer, min(limits.per_address, limits.per_shared_address), limits.per_card)
        async with connection(self._pool) as session:
            rows = await session.fetch(_DECLINED, _longest_seconds(limits), *fewest)
        return declines.find_blocks(map(_attempt_from_row, rows), limits)

    async def lift_block(self, kind: LimitKind, attempt_id: UUID, operator: str) -> int:
        """Lift a block: its declines no longer count for this kind of limit. The lift is stored permanently.

        A block is a limit of declined cards that is reached.

        Args:
            kind: kind of the limit.
            attempt_id: one of the block's attempts.
            operator: principal who lifts the block.

        Returns:
            The number of declines that no longer count. If it is 0, no lift is stored.
        """
        column = _LIMITED_BY[kind]
        async with connection(self._pool) as session, transaction(session):
            rows = await session.fetch(_OF_BLOCK.format(column=column), attempt_id)
            if rows:
                customers = sorted({row["principal"] for row in rows if row["principal"] is not None})
                await session.execute(_RECORD_LIFT, uuid7(), kind, customers, len(rows), operator)
                await session.execute(_LIFT.format(column=column), [row["id"] for row in rows])
        return len(rows)

    async def redate_future_attempts(self) -> int:
        """Set the time of attempts that are in the future to now, and return their number.

        They were stored while the clock of the database was ahead. So they count for one period of the limits from now.
        """
        async with connection(self._pool) as session:
            return _count(await session.execute(_REDATE))

    async def delete_old_attempts(self, limits: DeclineLimits) -> int:
        """Delete the attempts that no longer count, and return their number."""
        async with connection(self._pool) as session:
            return _count(await session.execute(_DELETE_OLD, _longest_seconds(limits)))


def _lock_key(kind: LimitKind, subject: Subject) -> int:
    """Return the key of the advisory lock of a customer, an address or a card."""
    name = subject if isinstance(subject, bytes) else subject.encode()
    return int.from_bytes(blake2b(name, digest_size=8, person=kind.encode()).digest(), signed=True)


def _longest_seconds(limits: DeclineLimits) -> float:
    """Return the time for which an attempt may count for a limit."""
    return max(limits.window_seconds, limits.attempt_seconds)


def _count(status: str) -> int:
    """Return the number of rows in the status of a command, such as `UPDATE 3`."""
    return int(status.rpartition(" ")[2])


def _attempt_from_row(row: asyncpg.Record) -> StoredAttempt:
    subjects = {kind: subject for kind, column in _LIMITED_BY.items() if (subject := row[column]) is not None}
    return StoredAttempt(row["id"], subjects, row["idempotency_key"], AttemptState(row["state"]), row["age_seconds"])
