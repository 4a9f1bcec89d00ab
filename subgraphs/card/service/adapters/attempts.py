"""SQL of the attempts to use a card, which the limits of declined cards count."""

from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Row,
    Select,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy import cast as sql_cast
from uuid_utils.compat import uuid7

from kit.db.database import Database
from subgraphs.card.service.adapters.expressions import from_now, set_attempt_state, with_key
from subgraphs.card.service.adapters.tables import attempts, lifts
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
    LimitKind.CUSTOMER: attempts.c.principal,
    LimitKind.ADDRESS: attempts.c.address,
    LimitKind.CARD: attempts.c.card,
}
"""Column by which each limit counts attempts. A row without a value does not count for the limit."""


class AttemptRepository:
    """Stored attempts to use a card. `Repository` ends an attempt in the transaction that saves its top-up.

    Every method raises Unavailable if the database is unavailable. It is then unknown whether a change was committed.
    All methods are safe to repeat.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, attempt: NewAttempt, limits: DeclineLimits) -> Verdict:
        """Store an attempt to use a card if the limits of declined cards have room for it (`declines.judge`).

        Attempts of one customer, address or card are decided one after another, so that they cannot exceed a limit
        together. The verdict is also NoRoomYet if a top-up with the attempt's idempotency key exists already.
        """
        subjects = {kind: subject for kind in LimitKind if (subject := attempt.subject(kind)) is not None}
        # Sorted, so that two attempts do not deadlock.
        keys = sorted(_lock_key(kind, subject) for kind, subject in subjects.items())
        locks = func.unnest(sql_cast(keys, ARRAY(BigInteger))).column_valued("key")
        same = or_(*(_LIMITED_BY[kind] == subject for kind, subject in subjects.items()))
        async with self._database.transaction() as sql:
            # The locks are held until the commit. This commit need not wait for the disk, because the later commit of
            # `admit` or `record_decline` waits and also flushes the earlier records of the WAL.
            no_wait = func.set_config("synchronous_commit", "off", True)
            await sql.execute(select(no_wait, func.pg_advisory_xact_lock(locks)))
            stored = await sql.execute(_select_attempts(limits).where(same))
            verdict = declines.judge(attempt, map(_attempt_from_row, stored), limits)
            if not isinstance(verdict, Room):
                return verdict
            row = {
                attempts.c.id: attempt.id,
                attempts.c.principal: attempt.key.principal,
                attempts.c.idempotency_key: attempt.key.key,
                attempts.c.address: attempt.address,
                attempts.c.card: attempt.card,
            }
            values = select(*(literal(value, column.type) for column, value in row.items()))
            stored = await sql.execute(
                insert(attempts).from_select(list(row), values.where(~with_key(attempt.key).exists()))
            )
            return verdict if stored.rowcount else NoRoomYet()

    async def record_decline(self, attempt_id: UUID) -> None:
        """Count an attempt whose card the acquirer has refused to tokenize."""
        async with self._database.statement() as sql:
            await sql.execute(set_attempt_state(AttemptState.DECLINED).where(attempts.c.id == attempt_id))

    async def end_attempt(self, attempt_id: UUID) -> None:
        """Delete an attempt that led to no top-up. An attempt that led to a top-up is not changed."""
        led_to_none = (attempts.c.id == attempt_id) & (attempts.c.state == AttemptState.TOKENIZING)
        async with self._database.statement() as sql:
            await sql.execute(delete(attempts).where(led_to_none))

    async def list_blocks(self, limits: DeclineLimits) -> list[Block]:
        """Return the limits of declined cards that are reached now."""
        declined = attempts.c.state == AttemptState.DECLINED
        fewest = {
            LimitKind.CUSTOMER: limits.per_customer,
            LimitKind.ADDRESS: min(limits.per_address, limits.per_shared_address),
            LimitKind.CARD: limits.per_card,
        }
        frequent = or_(
            *(
                column.in_(
                    select(column)
                    .where(declined, _is_recent(limits), column.is_not(None))
                    .group_by(column)
                    .having(func.count() >= fewest[kind])
                )
                for kind, column in _LIMITED_BY.items()
            )
        )
        async with self._database.statement() as sql:
            stored = await sql.execute(_select_attempts(limits).where(declined, frequent))
            return declines.find_blocks(map(_attempt_from_row, stored), limits)

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
        subject = select(column).where(attempts.c.id == attempt_id).scalar_subquery()
        of_block = select(attempts.c.id, attempts.c.principal).where(
            column == subject, attempts.c.state == AttemptState.DECLINED
        )
        async with self._database.transaction() as sql:
            rows = (await sql.execute(of_block.with_for_update())).all()
            if rows:
                customers = sorted({row.principal for row in rows if row.principal is not None})
                entry = {"id": uuid7(), "kind": kind, "customers": customers, "declines": len(rows)}
                await sql.execute(insert(lifts).values(**entry, lifted_by=operator))
                lifted = attempts.c.id.in_([row.id for row in rows])
                await sql.execute(update(attempts).where(lifted).values({column: None}))
            return len(rows)

    async def redate_future_attempts(self) -> int:
        """Set the time of attempts that are in the future to now, and return their number.

        They were stored while the clock of the database was ahead. So they count for one period of the limits from now.
        """
        is_future = attempts.c.since > func.clock_timestamp()
        future = select(attempts.c.id).where(is_future).with_for_update(skip_locked=True)
        redated = update(attempts).where(attempts.c.id.in_(future)).values(since=func.clock_timestamp())
        async with self._database.statement() as sql:
            return (await sql.execute(redated)).rowcount

    async def delete_old_attempts(self, limits: DeclineLimits) -> int:
        """Delete the attempts that no longer count, and return their number."""
        async with self._database.statement() as sql:
            return (await sql.execute(delete(attempts).where(~_is_recent(limits)))).rowcount


def _lock_key(kind: LimitKind, subject: Subject) -> int:
    """Return the key of the advisory lock of a customer, an address or a card."""
    name = subject if isinstance(subject, bytes) else subject.encode()
    return int.from_bytes(blake2b(name, digest_size=8, person=kind.encode()).digest(), signed=True)


def _is_recent(limits: DeclineLimits) -> ColumnElement[bool]:
    """Return the SQL condition for attempts that are recent enough to count for a limit."""
    return attempts.c.since > from_now(-max(limits.window_seconds, limits.attempt_seconds))


def _select_attempts(limits: DeclineLimits) -> Select[Any]:
    """Select the recent attempts with their age. An attempt in the future counts as an attempt of this moment."""
    age = func.greatest(func.extract("epoch", func.clock_timestamp() - attempts.c.since), 0).label("age_seconds")
    return select(attempts, age).where(_is_recent(limits))


def _attempt_from_row(row: Row[Any]) -> StoredAttempt:
    columns = {LimitKind.CUSTOMER: row.principal, LimitKind.ADDRESS: row.address, LimitKind.CARD: row.card}
    subjects = {kind: subject for kind, subject in columns.items() if subject is not None}
    return StoredAttempt(row.id, subjects, row.idempotency_key, AttemptState(row.state), float(row.age_seconds))
