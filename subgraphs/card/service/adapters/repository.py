"""SQL of top-ups and webhooks."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Executable,
    Integer,
    Row,
    Uuid,
    any_,
    cast,
    column,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db.database import Database
from kit.db.postgres import CONFIRM_COMMITS
from subgraphs.card.service.adapters.expressions import from_now, is_due, is_too_far_ahead, set_attempt_state, with_key
from subgraphs.card.service.adapters.tables import attempts, top_ups, webhooks
from subgraphs.card.service.domain import rules, transitions
from subgraphs.card.service.domain.cards import Brand, CardToken
from subgraphs.card.service.domain.declines import (
    AttemptOutcome,
    AttemptState,
)
from subgraphs.card.service.domain.payment import PaymentStatus
from subgraphs.card.service.domain.rules import Limits
from subgraphs.card.service.domain.top_up import (
    IdempotencyKey,
    NewTopUp,
    OpenTopUps,
    Status,
    Step,
    TopUp,
    TopUpPage,
    TopUpPageRequest,
)
from wallet.errors import IdempotencyConflict
from wallet.idempotency_key import text_from_stored_form
from wallet.money import Money

CHANNEL: Final = "top_ups"
"""Notification channel for changes; the payload is the id of the top-up."""

_HEARTBEAT_SECONDS: Final = 5.0
_LAST_ID: Final = UUID(int=2**128 - 1)
"""Sorts after the id of every top-up."""
_DAY: Final = timedelta(hours=24)
_MAX_AHEAD: Final = timedelta(minutes=1)
"""Top-ups that were created further ahead do not count towards the daily limit: the clock of the database was ahead.
They would fill the limit until their future date."""
_EXEMPT_STATUSES: Final = (Status.DECLINED, Status.VOIDED, Status.REFUNDED)
"""Top-ups with these statuses do not count towards the daily limit."""
open_database: Final = partial(Database.open, service="card", label="the top-ups' database")
"""Open the service's database. Arguments: the URL and `max_connections`."""


class LeaseLostError(Exception):
    """Another driver has saved the top-up since this driver read it. This save had no effect.

    A driver is a task that makes a top-up's calls.
    """


class Repository:
    """Stored top-ups and webhooks.

    A driver is a task that makes a top-up's calls. A lease is the time for which a top-up belongs to one driver.

    Every method raises Unavailable if the database is unavailable. It is then unknown whether a change was committed.
    All methods are safe to repeat.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ping(self) -> None:
        """Check that the database is ready; see `Database.check`."""
        await self._database.check(top_ups)

    async def admit(self, new: NewTopUp, limits: Limits, *, lease_seconds: float) -> TopUp:
        """Return the top-up with the request's idempotency key. Create and lease it if the key is new.

        Before this call, `AttemptRepository` has stored an attempt to use the card, with the same id as `new`. If the
        top-up is created, the attempt gets the state AUTHORIZING. If the key has a top-up already, the attempt is
        deleted.

        Requests of one principal are admitted one after another, so that they cannot exceed the limits together.

        Args:
            new: request.
            limits: limits by currency.
            lease_seconds: duration of the lease of a created top-up.

        Raises:
            IdempotencyConflict: the key was used with another request.
            InvalidInput: the key is new, and there are no limits for the currency.
            TopUpLimitExceeded: the key is new, and the amount exceeds a limit.
        """
        async with self._database.transaction() as sql:
            await sql.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(new.key.principal, 0))))
            if existing := await _find_by_key(sql, new.key):
                if existing.fingerprint != new.fingerprint:
                    raise IdempotencyConflict(text_from_stored_form(new.key.key))
                await sql.execute(text(CONFIRM_COMMITS))
                await sql.execute(delete(attempts).where(attempts.c.id == new.id))
                return existing
            used = await sql.execute(
                select(func.coalesce(func.sum(top_ups.c.amount), 0)).where(
                    top_ups.c.principal == new.key.principal,
                    top_ups.c.currency == new.amount.currency,
                    top_ups.c.created_at > func.now() - _DAY,
                    top_ups.c.created_at <= func.now() + _MAX_AHEAD,
                    top_ups.c.status.not_in(_EXEMPT_STATUSES),
                )
            )
            rules.check_limits(limits, new.amount, Money(used.scalar_one(), new.amount.currency))
            authorizing = set_attempt_state(AttemptState.AUTHORIZING).where(attempts.c.id == new.id).cte("authorizing")
            created = await sql.execute(
                insert(top_ups)
                .values(
                    id=new.id,
                    principal=new.key.principal,
                    idempotency_key=new.key.key,
                    fingerprint=new.fingerprint,
                    owner_id=new.owner_id,
                    account_id=new.account_id,
                    amount=new.amount.amount,
                    currency=new.amount.currency,
                    card_token=new.card.token,
                    card_brand=new.card.brand,
                    card_last_four=new.card.last_four,
                    card_digest=new.card_digest,
                    next_attempt_at=from_now(lease_seconds),
                )
                .returning(top_ups)
                .add_cte(authorizing)
            )
            return _top_up_from_row(created.one())

    async def find_by_key(self, key: IdempotencyKey) -> TopUp | None:
        """Return the top-up with an idempotency key; None if there is none.

        The method waits until the synchronous standbys, if there are any, have the top-up, so that no failover can lose
        it.
        """
        async with self._database.statement() as sql:
            top_up = await _find_by_key(sql, key)
            if top_up is not None:
                await sql.execute(text(CONFIRM_COMMITS))
            return top_up

    async def get(self, ids: Sequence[UUID]) -> dict[UUID, TopUp]:
        """Return the top-ups with these ids, by id. Ids without a top-up are left out."""
        async with self._database.statement() as sql:
            rows = await sql.execute(select(top_ups).where(top_ups.c.id.in_(ids)))
            return {row.id: _top_up_from_row(row) for row in rows}

    async def list_pages(self, requests: Sequence[TopUpPageRequest]) -> list[TopUpPage]:
        """Return a page of an account's top-ups for each request, newest first.

        Args:
            requests: the pages. The limit of each is positive.
        """
        newer = [each for each in requests if each.newer_than is not None]
        older = [each for each in requests if each.newer_than is None]
        pages: dict[TopUpPageRequest, TopUpPage] = {}
        async with self._database.transaction() as sql:
            for same_direction in (newer, older):
                if same_direction:
                    pages |= await _read_pages(sql, same_direction)
        return [pages[each] for each in requests]

    async def claim(self, limit: int, *, lease_seconds: float, id_: UUID | None = None) -> list[TopUp]:
        """Lease due top-ups to the caller, the longest due first. No other driver gets them during the lease.

        A top-up is due if its lease has ended or its retry delay is over, or if the stored time is further ahead than
        any lease or delay, because the clock of the database was ahead.

        Args:
            limit: maximum number of top-ups.
            lease_seconds: duration of the lease. After the lease the top-ups are due again, unless they were saved
                before.
            id_: claim only this top-up, if it is due.
        """
        due = select(top_ups.c.id).where(is_due())
        if id_ is not None:
            due = due.where(top_ups.c.id == id_)
        due = due.order_by(top_ups.c.next_attempt_at).limit(limit).with_for_update(skip_locked=True)
        async with self._database.statement() as sql:
            claimed = await sql.execute(
                update(top_ups)
                # As an array, so that the subquery runs only once in every query plan.
                .where(top_ups.c.id == any_(func.array(due.scalar_subquery())))
                .values(next_attempt_at=from_now(lease_seconds))
                .returning(top_ups)
            )
            return [_top_up_from_row(row) for row in claimed]

    async def renew_leases(self, versions: Mapping[UUID, int], *, lease_seconds: float) -> None:
        """Extend the leases of the top-ups that no other driver has saved in the meantime.

        Args:
            versions: version of each top-up when it was leased or last saved.
            lease_seconds: duration of the lease from now.
        """
        leased = tuple_(top_ups.c.id, top_ups.c.version).in_(versions.items()) & top_ups.c.next_attempt_at.is_not(None)
        async with self._database.statement() as sql:
            await sql.execute(update(top_ups).where(leased).values(next_attempt_at=from_now(lease_seconds)))

    async def save(self, top_up: TopUp, *, due_seconds: float | None, outcome: AttemptOutcome | None = None) -> TopUp:
        """Save a top-up and notify its subscribers. Return the top-up with its new version.

        Args:
            top_up: new state, with the version that it replaces.
            due_seconds: seconds from now until a driver may take the top-up: a lease or a retry delay. None: never.
            outcome: outcome of the top-up's attempt to use the card, if it is known now.

        Raises:
            LeaseLostError: another driver has saved the top-up.
        """
        saving = (
            update(top_ups)
            .where(top_ups.c.id == top_up.id, top_ups.c.version == top_up.version)
            .values(
                status=top_up.status,
                step=top_up.step,
                attempts=top_up.attempts,
                retries=top_up.retries,
                next_attempt_at=None if due_seconds is None else from_now(due_seconds),
                failure=top_up.failure,
                payment_id=top_up.payment_id,
                transfer_id=top_up.transfer_id,
                review=top_up.review,
                updated_at=func.now(),
                version=top_ups.c.version + 1,
            )
            .returning(top_ups, func.pg_notify(CHANNEL, str(top_up.id)).label("notified"))
        )
        if outcome is None:
            statement: Executable = saving
        else:  # in one statement, so that both are saved or neither
            saved = saving.cte("saved")
            of_top_up = attempts.c.id == select(saved.c.id).scalar_subquery()
            is_declined = outcome is AttemptOutcome.DECLINED
            ending = set_attempt_state(AttemptState.DECLINED) if is_declined else delete(attempts)
            statement = select(saved).add_cte(ending.where(of_top_up).cte("ended"))
        async with self._database.statement() as sql:
            row = (await sql.execute(statement)).one_or_none()
            if row is None:
                raise LeaseLostError
            return _top_up_from_row(row)

    async def record_webhook(
        self, webhook_id: str, kind: str, top_up_id: UUID | None, reported: PaymentStatus
    ) -> bool | None:
        """Store a webhook once, and make its top-up due if `transitions.needs_acquirer_call` returns true.

        Args:
            webhook_id: the acquirer's id. All deliveries of a webhook have the same id.
            kind: type of the event.
            top_up_id: top-up of the payment; None if this service did not create the payment.
            reported: status of the payment according to the webhook.

        Returns:
            Whether the top-up became due; None at the first delivery of a webhook whose top-up does not exist.
        """
        async with self._database.transaction() as sql:
            stored = await sql.execute(
                postgresql.insert(webhooks)
                .values(id=webhook_id, type=kind, top_up_id=top_up_id)
                .on_conflict_do_nothing()
                .returning(webhooks.c.id)
            )
            if stored.one_or_none() is None:
                await sql.execute(text(CONFIRM_COMMITS))
                return False
            rows = await sql.execute(select(top_ups).where(top_ups.c.id == top_up_id).with_for_update())
            row = rows.one_or_none()
            if row is None:
                return None
            if not transitions.needs_acquirer_call(_top_up_from_row(row), reported):
                return False
            await sql.execute(update(top_ups).where(top_ups.c.id == top_up_id).values(next_attempt_at=func.now()))
            return True

    async def list_for_review(self) -> list[TopUp]:
        """Return the top-ups that need a review, oldest first."""
        async with self._database.statement() as sql:
            rows = await sql.execute(select(top_ups).where(top_ups.c.review.is_not(None)).order_by(top_ups.c.id))
            return [_top_up_from_row(row) for row in rows]

    async def list_too_far_ahead(self) -> dict[UUID, datetime]:
        """Return the time of the next attempt of each top-up for which this time is further ahead than any delay."""
        query = select(top_ups.c.id, top_ups.c.next_attempt_at).where(is_too_far_ahead()).order_by(top_ups.c.id)
        async with self._database.statement() as sql:
            return {row.id: row.next_attempt_at for row in await sql.execute(query)}

    async def count_open(self) -> list[OpenTopUps]:
        """Count the top-ups that are in progress or need a review, by status."""
        due, review = top_ups.c.next_attempt_at, top_ups.c.review
        age = func.extract("epoch", func.clock_timestamp() - func.min(top_ups.c.created_at))
        query = (
            select(top_ups.c.status, func.count(), func.count(review), age)
            .where(or_(due.is_not(None), review.is_not(None)))
            .group_by(top_ups.c.status)
        )
        async with self._database.statement() as sql:
            return [
                OpenTopUps(Status(status), count, to_review, float(seconds))
                for status, count, to_review, seconds in await sql.execute(query)
            ]

    async def list_after(self, id_: UUID | None, limit: int) -> list[TopUp]:
        """Return at most `limit` top-ups in the order of their ids, beginning after `id_` (None: with the first id)."""
        query = select(top_ups).order_by(top_ups.c.id).limit(limit)
        if id_ is not None:
            query = query.where(top_ups.c.id > id_)
        async with self._database.statement() as sql:
            return [_top_up_from_row(row) for row in await sql.execute(query)]

    async def listen(self, on_change: Callable[[UUID], None], on_gap: Callable[[], None]) -> None:
        """Listen for top-ups that any replica saves, until the connection is lost; then raise Unavailable.

        Args:
            on_change: called with the id of each saved top-up.
            on_gap: called when listening has started, because earlier changes were not notified.
        """
        lost = asyncio.Event()
        async with self._database.connection() as sql:
            raw: Any = (await sql.get_raw_connection()).driver_connection
            try:
                raw.add_termination_listener(lambda _: lost.set())
                await raw.add_listener(CHANNEL, lambda *arguments: on_change(UUID(arguments[-1])))
                on_gap()
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_HEARTBEAT_SECONDS):
                            await lost.wait()
                    await raw.execute("SELECT 1")  # outside of a transaction, which would delay notifications
            finally:
                await sql.invalidate()  # do not return a lost or listening connection to the pool


async def _read_pages(sql: AsyncConnection, requests: Sequence[TopUpPageRequest]) -> dict[TopUpPageRequest, TopUpPage]:
    """Return the page of each request, with two statements. The requests have one paging direction."""
    is_newer = requests[0].newer_than is not None
    bounds = [(each.newer_than if is_newer else each.older_than) or _LAST_ID for each in requests]
    wanted = (
        func.unnest(
            cast([each.account_id for each in requests], ARRAY(Uuid)),
            cast(bounds, ARRAY(Uuid)),
            cast([each.limit + 1 for each in requests], ARRAY(Integer)),
        )
        .table_valued(
            column("account_id", Uuid), column("bound", Uuid), column("size", Integer), with_ordinality="number"
        )
        .render_derived()
    )
    id_, of_account = top_ups.c.id, top_ups.c.account_id == wanted.c.account_id
    page = select(top_ups).where(of_account).limit(wanted.c.size)
    opposite = select(id_).where(of_account)  # top-ups on the other side of the bound
    if is_newer:
        page, opposite = (
            page.where(id_ > wanted.c.bound).order_by(id_.asc()),
            opposite.where(id_ <= wanted.c.bound),
        )
    else:
        page, opposite = (
            page.where(id_ < wanted.c.bound).order_by(id_.desc()),
            opposite.where(id_ >= wanted.c.bound),
        )
    lateral = page.lateral()
    rows: dict[int, list[TopUp]] = {}
    for row in await sql.execute(select(wanted.c.number, lateral).join_from(wanted, lateral, true())):
        rows.setdefault(row.number, []).append(_top_up_from_row(row))
    other_side = await sql.execute(select(wanted.c.number, opposite.exists().label("has")).select_from(wanted))
    has_opposite = {row.number: row.has for row in other_side}
    pages = {}
    for number, request in enumerate(requests, start=1):
        found = sorted(rows.get(number, ()), key=lambda top_up: top_up.id, reverse=not is_newer)
        page_rows, has_more = tuple(found[: request.limit]), len(found) > request.limit
        pages[request] = (
            TopUpPage(page_rows[::-1], has_older=has_opposite[number], has_newer=has_more)
            if is_newer
            else TopUpPage(page_rows, has_older=has_more, has_newer=has_opposite[number])
        )
    return pages


async def _find_by_key(sql: AsyncConnection, key: IdempotencyKey) -> TopUp | None:
    rows = [_top_up_from_row(row) for row in await sql.execute(with_key(key))]
    return next((each for each in rows if each.key.key == key.earlier), rows[0] if rows else None)


def _top_up_from_row(row: Row[Any]) -> TopUp:
    return TopUp(
        row.id,
        IdempotencyKey(row.principal, row.idempotency_key),
        row.fingerprint,
        row.owner_id,
        row.account_id,
        Money(row.amount, row.currency),
        CardToken(row.card_token, Brand(row.card_brand), row.card_last_four),
        row.card_digest,
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
