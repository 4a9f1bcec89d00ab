"""All SQL of the card service: top-ups in and out as domain values."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, any_, false, func, insert, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db.database import Database
from subgraphs.card.service.adapters.tables import top_ups, webhooks
from subgraphs.card.service.domain import rules, transitions
from subgraphs.card.service.domain.rules import Limits
from subgraphs.card.service.domain.top_up import (
    Brand,
    Key,
    Page,
    PaymentStatus,
    Status,
    Step,
    Tally,
    Token,
    TopUp,
    Wish,
)
from wallet.errors import IdempotencyConflict
from wallet.money import Money

CHANNEL: Final = "top_ups"
"""Where the database tells of changes; the payload is the top-up's id."""

_HEARTBEAT_SECONDS: Final = 5.0
_DAY: Final = timedelta(hours=24)
_NOT_COUNTED: Final = (Status.DECLINED, Status.VOIDED, Status.REFUNDED)
open_database: Final = partial(Database.open, service="card", label="the top-ups' database")
"""The service's database, by its URL and the most connections to it."""


class LeaseLostError(Exception):
    """Somebody else has moved the top-up on meanwhile. Nothing was saved; what is there now is theirs."""


class Repository:
    """The top-ups.

    Every method raises Unavailable when the database is away, or goes away in the middle; what was being saved may or
    may not be then, and calling again is safe.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ping(self) -> None:
        """Returns when the database answers, and has the tables."""
        async with self._database.statement() as sql:
            await sql.execute(select(top_ups.c.id).limit(1))

    async def admit(self, wish: Wish, limits: Limits, *, lease_seconds: float) -> TopUp:
        """The top-up of the wish's key: the one that is there, or a new one with the wish's id, leased to the caller.

        The wishes of one caller are admitted one after the other.

        Raises:
            IdempotencyConflict: the key was used with another request.
            InvalidInput, TopUpLimitExceeded: it is new, and beyond the limits.
        """
        async with self._database.transaction() as sql:
            await sql.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(wish.key.principal, 0))))
            if known := await _find(sql, wish.key):
                if known.fingerprint != wish.fingerprint:
                    raise IdempotencyConflict(wish.key.key)
                return known
            used = await sql.execute(
                select(func.coalesce(func.sum(top_ups.c.amount), 0)).where(
                    top_ups.c.principal == wish.key.principal,
                    top_ups.c.currency == wish.amount.currency,
                    top_ups.c.created_at > func.now() - _DAY,
                    top_ups.c.status.not_in(_NOT_COUNTED),
                )
            )
            rules.check_limits(limits, wish.amount, Money(used.scalar_one(), wish.amount.currency))
            made = await sql.execute(
                insert(top_ups)
                .values(
                    id=wish.id,
                    principal=wish.key.principal,
                    idempotency_key=wish.key.key,
                    fingerprint=wish.fingerprint,
                    owner_id=wish.owner_id,
                    account_id=wish.account_id,
                    amount=wish.amount.amount,
                    currency=wish.amount.currency,
                    card_token=wish.card.token,
                    card_brand=wish.card.brand,
                    card_last_four=wish.card.last_four,
                    next_attempt_at=_from_now(lease_seconds),
                )
                .returning(top_ups)
            )
            return _top_up(made.one())

    async def find(self, key: Key) -> TopUp | None:
        """The top-up that was asked for with a key."""
        async with self._database.statement() as sql:
            return await _find(sql, key)

    async def get(self, ids: Sequence[UUID]) -> dict[UUID, TopUp]:
        """Those of the top-ups that exist."""
        async with self._database.statement() as sql:
            found = await sql.execute(select(top_ups).where(top_ups.c.id.in_(ids)))
            return {row.id: _top_up(row) for row in found}

    async def page(
        self, account_id: UUID, *, limit: int, older_than: UUID | None = None, newer_than: UUID | None = None
    ) -> Page:
        """Top-ups of an account, newest first: the newest of those older than one, or the oldest of those newer."""
        id_, of_account = top_ups.c.id, top_ups.c.account_id == account_id
        wanted = select(top_ups).where(of_account).limit(limit + 1)
        passed = select(id_).where(of_account).limit(1)
        if newer_than is not None:
            wanted, passed = wanted.where(id_ > newer_than).order_by(id_.asc()), passed.where(id_ <= newer_than)
        elif older_than is not None:
            wanted, passed = wanted.where(id_ < older_than).order_by(id_.desc()), passed.where(id_ >= older_than)
        else:
            wanted, passed = wanted.order_by(id_.desc()), passed.where(false())
        async with self._database.transaction() as sql:
            found = [_top_up(row) for row in await sql.execute(wanted)]
            are_passed = await sql.scalar(passed) is not None
        rows, are_more = tuple(found[:limit]), len(found) > limit
        if newer_than is not None:
            return Page(rows[::-1], has_older=are_passed, has_newer=are_more)
        return Page(rows, has_older=are_more, has_newer=are_passed)

    async def claim(self, limit: int, *, lease_seconds: float, id_: UUID | None = None) -> list[TopUp]:
        """Top-ups that are due, longest first, leased to the caller: for so long nobody else is given them.

        Args:
            limit: how many at most.
            lease_seconds: after which they are due again, unless saved.
            id_: this one alone, if it is due.
        """
        due = select(top_ups.c.id).where(top_ups.c.next_attempt_at <= func.now())
        if id_ is not None:
            due = due.where(top_ups.c.id == id_)
        due = due.order_by(top_ups.c.next_attempt_at).limit(limit).with_for_update(skip_locked=True)
        async with self._database.statement() as sql:
            claimed = await sql.execute(
                update(top_ups)
                .where(top_ups.c.id == any_(func.array(due.scalar_subquery())))  # looked up once, whatever the plan
                .values(next_attempt_at=_from_now(lease_seconds))
                .returning(top_ups)
            )
            return [_top_up(row) for row in claimed]

    async def renew(self, versions: Mapping[UUID, int], *, lease_seconds: float) -> None:
        """Makes the leases of top-ups last for so long from now, unless somebody has saved them since.

        Args:
            versions: of each top-up, as it was leased or last saved.
            lease_seconds: as `claim`.
        """
        leased = tuple_(top_ups.c.id, top_ups.c.version).in_(versions.items()) & top_ups.c.next_attempt_at.is_not(None)
        async with self._database.statement() as sql:
            await sql.execute(update(top_ups).where(leased).values(next_attempt_at=_from_now(lease_seconds)))

    async def save(self, top_up: TopUp, *, due_seconds: float | None) -> TopUp:
        """The top-up as it was saved, with its new version. Whoever watches it is told.

        Args:
            top_up: what became of the version that it carries.
            due_seconds: from now, when the next driver may take it: a lease, or a pause. None: never.

        Raises:
            LeaseLostError: that version is no more.
        """
        async with self._database.statement() as sql:
            saved = await sql.execute(
                update(top_ups)
                .where(top_ups.c.id == top_up.id, top_ups.c.version == top_up.version)
                .values(
                    status=top_up.status,
                    step=top_up.step,
                    attempts=top_up.attempts,
                    retries=top_up.retries,
                    next_attempt_at=None if due_seconds is None else _from_now(due_seconds),
                    failure=top_up.failure,
                    payment_id=top_up.payment_id,
                    transfer_id=top_up.transfer_id,
                    review=top_up.review,
                    updated_at=func.now(),
                    version=top_ups.c.version + 1,
                )
                .returning(top_ups, func.pg_notify(CHANNEL, str(top_up.id)))
            )
            row = saved.one_or_none()
            if row is None:
                raise LeaseLostError
            return _top_up(row)

    async def receive(self, webhook_id: str, kind: str, top_up_id: UUID | None, told: PaymentStatus) -> bool:
        """Takes a webhook in, once. Whether it made its top-up due, because it may be news.

        Args:
            webhook_id: the acquirer's.
            kind: the event's type.
            top_up_id: of the payment; None if it is none of ours.
            told: what the payment is said to be.
        """
        async with self._database.transaction() as sql:
            taken = await sql.execute(
                postgresql.insert(webhooks)
                .values(id=webhook_id, type=kind, top_up_id=top_up_id)
                .on_conflict_do_nothing()
                .returning(webhooks.c.id)
            )
            if taken.one_or_none() is None or top_up_id is None:
                return False
            found = await sql.execute(select(top_ups).where(top_ups.c.id == top_up_id).with_for_update())
            row = found.one_or_none()
            if row is None or not transitions.is_news(_top_up(row), told):
                return False
            await sql.execute(update(top_ups).where(top_ups.c.id == top_up_id).values(next_attempt_at=func.now()))
            return True

    async def to_review(self) -> list[TopUp]:
        """What a person has to look at, oldest first."""
        async with self._database.statement() as sql:
            found = await sql.execute(select(top_ups).where(top_ups.c.review.is_not(None)).order_by(top_ups.c.id))
            return [_top_up(row) for row in found]

    async def tallies(self) -> list[Tally]:
        """What is under way or to be looked at by a person, by status."""
        due, review = top_ups.c.next_attempt_at, top_ups.c.review
        age = func.extract("epoch", func.clock_timestamp() - func.min(top_ups.c.created_at))
        query = (
            select(top_ups.c.status, func.count(), func.count(review), age)
            .where(or_(due.is_not(None), review.is_not(None)))
            .group_by(top_ups.c.status)
        )
        async with self._database.statement() as sql:
            return [
                Tally(Status(status), count, to_review, float(seconds))
                for status, count, to_review, seconds in await sql.execute(query)
            ]

    async def after(self, id_: UUID | None, limit: int) -> list[TopUp]:
        """All top-ups in the order of their ids, a page of them."""
        query = select(top_ups).order_by(top_ups.c.id).limit(limit)
        if id_ is not None:
            query = query.where(top_ups.c.id > id_)
        async with self._database.statement() as sql:
            return [_top_up(row) for row in await sql.execute(query)]

    async def listen(self, on_change: Callable[[UUID], None], on_gap: Callable[[], None]) -> None:
        """Calls `on_change` with each top-up that is saved by anybody, until the connection is lost, which is raised;
        `on_gap` once it listens: what was saved before was not told.
        """
        lost = asyncio.Event()
        async with self._database.connection() as sql:
            raw: Any = (await sql.get_raw_connection()).driver_connection
            try:
                raw.add_termination_listener(lambda _: lost.set())
                await raw.add_listener(CHANNEL, lambda *told: on_change(UUID(told[-1])))
                on_gap()
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_HEARTBEAT_SECONDS):
                            await lost.wait()
                    await raw.execute("SELECT 1")  # outside of any transaction, in which nothing would be told
            finally:
                await sql.invalidate()  # nobody else gets it, lost or listening


async def _find(sql: AsyncConnection, key: Key) -> TopUp | None:
    found = await sql.execute(
        select(top_ups).where(top_ups.c.principal == key.principal, top_ups.c.idempotency_key == key.key)
    )
    row = found.one_or_none()
    return None if row is None else _top_up(row)


def _from_now(seconds: float) -> ColumnElement[Any]:
    return func.clock_timestamp() + timedelta(seconds=seconds)


def _top_up(row: Row[Any]) -> TopUp:
    return TopUp(
        row.id,
        Key(row.principal, row.idempotency_key),
        row.fingerprint,
        row.owner_id,
        row.account_id,
        Money(row.amount, row.currency),
        Token(row.card_token, Brand(row.card_brand), row.card_last_four),
        Status(row.status),
        row.step and Step(row.step),
        row.attempts,
        row.retries,
        row.failure,
        row.payment_id,
        row.transfer_id,
        row.review,
        row.created_at,
        row.updated_at,
        row.version,
    )
