"""SQL of top-ups and webhooks. Each method is one statement if it needs no lock before it reads."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from typing import Final
from uuid import UUID

import asyncpg

from kit.db.pool import Connection, ping, terminate, transaction
from kit.db.postgres import CONFIRM_COMMITS
from subgraphs.card.service.adapters.database import LABEL, WITH_KEY, connection, from_now
from subgraphs.card.service.adapters.rows import TOP_UP, TOP_UP_COLUMNS, top_up_from_row
from subgraphs.card.service.domain import rules, transitions
from subgraphs.card.service.domain.declines import AttemptOutcome
from subgraphs.card.service.domain.payment import PaymentStatus
from subgraphs.card.service.domain.rules import Limits
from subgraphs.card.service.domain.top_up import (
    IdempotencyKey,
    NewTopUp,
    OpenTopUps,
    Status,
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
_FIRST_ID: Final = UUID(int=0)
"""Sorts before the id of every top-up."""
_LAST_ID: Final = UUID(int=2**128 - 1)
"""Sorts after the id of every top-up."""

_PING: Final = "SELECT FROM top_ups LIMIT 0 FOR UPDATE"  # locks no row; fails if read-only

_BY_KEY: Final = f"{TOP_UP} WHERE {WITH_KEY}"
_BY_ID: Final = f"{TOP_UP} WHERE id = ANY($1)"
_AFTER_ID: Final = f"{TOP_UP} WHERE id > $1 ORDER BY id LIMIT $2"
_FOR_REVIEW: Final = f"{TOP_UP} WHERE review IS NOT NULL ORDER BY id"

_LOCK_PRINCIPAL: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"

# Returns the top-ups of the key, or the created one, or none if the sum of the day's top-ups is above `$15`. Each row
# has this sum. Top-ups that were created more than a minute ahead do not count towards the sum: the clock of the
# database was ahead, and they would fill the limit until their future date.
_ADMIT: Final = f"""
    WITH stored AS MATERIALIZED (
        {_BY_KEY}
    ), day AS MATERIALIZED (
        SELECT coalesce(sum(amount), 0) AS used FROM top_ups
        WHERE principal = $1 AND currency = $9
          AND created_at > now() - interval '24 hours' AND created_at <= now() + interval '1 minute'
          AND status NOT IN ('{Status.DECLINED}', '{Status.VOIDED}', '{Status.REFUNDED}')
    ), created AS (
        INSERT INTO top_ups (
            id, principal, idempotency_key, fingerprint, owner_id, account_id, amount, currency, card_token, card_brand,
            card_last_four, card_digest, next_attempt_at
        )
        SELECT $3::uuid, $1, $4, $5::bytea, $6::text, $7::uuid, $8::numeric, $9, $10::text, $11::text, $12::text,
               $13::bytea, {from_now("$14")}
        FROM day WHERE used <= $15::numeric AND NOT EXISTS (SELECT FROM stored)
        RETURNING {TOP_UP_COLUMNS}
    ), authorizing AS (
        UPDATE card_attempts SET state = 'AUTHORIZING', since = clock_timestamp()
        WHERE id = (SELECT id FROM created)
    )
    SELECT day.used, top_up.* FROM day
    LEFT JOIN (SELECT * FROM stored UNION ALL SELECT * FROM created) AS top_up ON true
"""  # noqa: S608  only constants

_DELETE_ATTEMPT: Final = "DELETE FROM card_attempts WHERE id = $1"

_TOO_FAR_AHEAD: Final = f"next_attempt_at > now() + interval '{transitions.MAX_DELAY_SECONDS} seconds'"
"""SQL condition for top-ups whose next attempt is further ahead than any lease or retry delay."""

# As an array, so that the subquery runs only once in every query plan.
_CLAIM: Final = f"""
    UPDATE top_ups SET next_attempt_at = {from_now("$1")}
    WHERE id = ANY (ARRAY(
        SELECT id FROM top_ups WHERE (next_attempt_at <= now() OR {_TOO_FAR_AHEAD}) {{condition}}
        ORDER BY next_attempt_at LIMIT $2 FOR UPDATE SKIP LOCKED
    ))
    RETURNING {TOP_UP_COLUMNS}
"""  # noqa: S608  only constants
_CLAIM_DUE: Final = _CLAIM.format(condition="")
_CLAIM_ONE: Final = _CLAIM.format(condition="AND id = $3")

_RENEW: Final = f"""
    UPDATE top_ups SET next_attempt_at = {from_now("$3")}
    FROM unnest($1::uuid[], $2::bigint[]) AS leased (id, version)
    WHERE top_ups.id = leased.id AND top_ups.version = leased.version AND next_attempt_at IS NOT NULL
"""  # noqa: S608  only constants

_SAVE: Final = f"""
    UPDATE top_ups
    SET status = $3, step = $4, attempts = $5, retries = $6, next_attempt_at = {from_now("$7")}, failure = $8,
        payment_id = $9, transfer_id = $10, review = $11, updated_at = now(), version = version + 1
    WHERE id = $1 AND version = $2
    RETURNING {TOP_UP_COLUMNS}, pg_notify('{CHANNEL}', id::text)
"""  # noqa: S608  only constants

# One statement, so that the top-up and the end of its attempt are saved together or not at all.
_SAVE_OUTCOME: Final = f"""
    WITH saved AS ({_SAVE}), ended AS ({{ending}} WHERE id = (SELECT id FROM saved)) SELECT * FROM saved
"""  # noqa: S608  only constants
_SAVE_BY_OUTCOME: Final = {
    None: _SAVE,
    AttemptOutcome.DECLINED: _SAVE_OUTCOME.format(
        ending="UPDATE card_attempts SET state = 'DECLINED', since = clock_timestamp()"
    ),
    AttemptOutcome.OTHER: _SAVE_OUTCOME.format(ending="DELETE FROM card_attempts"),
}

# One statement, so that a webhook that is stored has made its top-up due.
_RECORD_WEBHOOK: Final = """
    WITH stored AS (
        INSERT INTO webhooks (id, type, top_up_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING id
    ), due AS (
        UPDATE top_ups SET next_attempt_at = now() WHERE id = $3 AND $4 AND EXISTS (SELECT FROM stored)
    )
    SELECT EXISTS (SELECT FROM stored)
"""

_LIST_TOO_FAR_AHEAD: Final = f"SELECT id, next_attempt_at FROM top_ups WHERE {_TOO_FAR_AHEAD} ORDER BY id"  # noqa: S608

_COUNT_OPEN: Final = """
    SELECT status, count(*) AS count, count(review) AS to_review,
           extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS oldest_seconds
    FROM top_ups WHERE next_attempt_at IS NOT NULL OR review IS NOT NULL GROUP BY status
"""

# Returns a row for each top-up of each page, and one row for an empty page. `has_opposite`: there are top-ups on the
# other side of the bound.
_PAGES: Final = f"""
    SELECT page.number, page.has_opposite, top_up.* FROM (
        SELECT wanted.*, EXISTS (
            SELECT FROM top_ups WHERE account_id = wanted.account AND id {{opposite}} wanted.bound
        ) AS has_opposite
        FROM unnest($1::uuid[], $2::uuid[], $3::int[]) WITH ORDINALITY AS wanted (account, bound, size, number)
    ) AS page
    LEFT JOIN LATERAL (
        {TOP_UP} WHERE account_id = page.account AND id {{side}} page.bound ORDER BY id {{order}} LIMIT page.size
    ) AS top_up ON true
    ORDER BY page.number, top_up.id DESC
"""  # noqa: S608  only constants
_NEWER_PAGES: Final = _PAGES.format(side=">", opposite="<=", order="ASC")
_OLDER_PAGES: Final = _PAGES.format(side="<", opposite=">=", order="DESC")


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

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def ping(self) -> None:
        """Check that the database is ready; see `kit.db.pool.ping`."""
        await ping(self._pool, LABEL, _PING)

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
        key, amount, card = new.key, new.amount, new.card
        async with connection(self._pool) as session, transaction(session):
            # The next statement must begin after the lock is held: only then it sees all earlier top-ups.
            await session.execute(_LOCK_PRINCIPAL, key.principal)
            rows = await session.fetch(
                _ADMIT,
                key.principal,
                key.forms,
                new.id,
                key.key,
                new.fingerprint,
                new.owner_id,
                new.account_id,
                amount.amount,
                amount.currency,
                card.token,
                card.brand,
                card.last_four,
                new.card_digest,
                lease_seconds,
                rules.max_used(limits, amount),
            )
            top_up = _find_with_key(key, [row for row in rows if row["id"] is not None])
            if top_up is None:
                rules.check_limits(limits, amount, Money(rows[0]["used"], amount.currency))
                raise AssertionError("the statement creates each top-up that the limits allow")
            if top_up.id != new.id:
                if top_up.fingerprint != new.fingerprint:
                    raise IdempotencyConflict(text_from_stored_form(key.key))
                await session.execute(CONFIRM_COMMITS)
                await session.execute(_DELETE_ATTEMPT, new.id)
        return top_up

    async def find_by_key(self, key: IdempotencyKey) -> TopUp | None:
        """Return the top-up with an idempotency key; None if there is none.

        The method waits until the synchronous standbys, if there are any, have the top-up, so that no failover can lose
        it.
        """
        async with connection(self._pool) as session:
            top_up = _find_with_key(key, await session.fetch(_BY_KEY, key.principal, key.forms))
            if top_up is not None:
                await session.execute(CONFIRM_COMMITS)
        return top_up

    async def get(self, ids: Sequence[UUID]) -> dict[UUID, TopUp]:
        """Return the top-ups with these ids, by id. Ids without a top-up are left out."""
        return {top_up.id: top_up for top_up in await self._fetch(_BY_ID, ids)}

    async def list_pages(self, requests: Sequence[TopUpPageRequest]) -> list[TopUpPage]:
        """Return a page of an account's top-ups for each request, newest first.

        Args:
            requests: the pages. The limit of each is positive.
        """
        newer = [each for each in requests if each.newer_than is not None]
        older = [each for each in requests if each.newer_than is None]
        pages: dict[TopUpPageRequest, TopUpPage] = {}
        async with connection(self._pool) as session:
            for same_direction in (newer, older):
                if same_direction:
                    pages |= await _read_pages(session, same_direction)
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
        if id_ is None:
            return await self._fetch(_CLAIM_DUE, lease_seconds, limit)
        return await self._fetch(_CLAIM_ONE, lease_seconds, limit, id_)

    async def renew_leases(self, versions: Mapping[UUID, int], *, lease_seconds: float) -> None:
        """Extend the leases of the top-ups that no other driver has saved in the meantime.

        Args:
            versions: version of each top-up when it was leased or last saved.
            lease_seconds: duration of the lease from now.
        """
        async with connection(self._pool) as session:
            await session.execute(_RENEW, list(versions), list(versions.values()), lease_seconds)

    async def save(self, top_up: TopUp, *, due_seconds: float | None, outcome: AttemptOutcome | None = None) -> TopUp:
        """Save a top-up and notify its subscribers. Return the top-up with its new version.

        Args:
            top_up: new state, with the version that it replaces.
            due_seconds: seconds from now until a driver may take the top-up: a lease or a retry delay. None: never.
            outcome: outcome of the top-up's attempt to use the card, if it is known now.

        Raises:
            LeaseLostError: another driver has saved the top-up.
        """
        async with connection(self._pool) as session:
            row = await session.fetchrow(
                _SAVE_BY_OUTCOME[outcome],
                top_up.id,
                top_up.version,
                top_up.status,
                top_up.step,
                top_up.attempts,
                top_up.retries,
                due_seconds,
                top_up.failure,
                top_up.payment_id,
                top_up.transfer_id,
                top_up.review,
            )
        if row is None:
            raise LeaseLostError
        return top_up_from_row(row)

    async def record_webhook(
        self, webhook_id: str, kind: str, top_up_id: UUID | None, reported: PaymentStatus
    ) -> bool | None:
        """Store a webhook once, and make its top-up due if `transitions.needs_acquirer_call` returns true.

        The top-up is not locked. If a driver saves it meanwhile, the result is that of a webhook that came before.

        Args:
            webhook_id: the acquirer's id. All deliveries of a webhook have the same id.
            kind: type of the event.
            top_up_id: top-up of the payment; None if this service did not create the payment.
            reported: status of the payment according to the webhook.

        Returns:
            Whether the top-up became due; None at the first delivery of a webhook whose top-up does not exist.
        """
        async with connection(self._pool) as session:
            row = await session.fetchrow(_BY_ID, [top_up_id])
            is_needed = row is not None and transitions.needs_acquirer_call(top_up_from_row(row), reported)
            if not await session.fetchval(_RECORD_WEBHOOK, webhook_id, kind, top_up_id, is_needed):
                await session.execute(CONFIRM_COMMITS)
                return False
        return None if row is None else is_needed

    async def list_for_review(self) -> list[TopUp]:
        """Return the top-ups that need a review, oldest first."""
        return await self._fetch(_FOR_REVIEW)

    async def list_too_far_ahead(self) -> dict[UUID, datetime]:
        """Return the time of the next attempt of each top-up for which this time is further ahead than any delay."""
        async with connection(self._pool) as session:
            return {row["id"]: row["next_attempt_at"] for row in await session.fetch(_LIST_TOO_FAR_AHEAD)}

    async def count_open(self) -> list[OpenTopUps]:
        """Count the top-ups that are in progress or need a review, by status."""
        async with connection(self._pool) as session:
            rows = await session.fetch(_COUNT_OPEN)
        return [
            OpenTopUps(Status(row["status"]), row["count"], row["to_review"], row["oldest_seconds"]) for row in rows
        ]

    async def list_after(self, id_: UUID | None, limit: int) -> list[TopUp]:
        """Return at most `limit` top-ups in the order of their ids, beginning after `id_` (None: with the first id)."""
        return await self._fetch(_AFTER_ID, id_ or _FIRST_ID, limit)

    async def listen(self, on_change: Callable[[UUID], None], on_gap: Callable[[], None]) -> None:
        """Listen for top-ups that any replica saves, until the connection is lost; then raise Unavailable.

        Args:
            on_change: called with the id of each saved top-up.
            on_gap: called when listening has started, because earlier changes were not notified.
        """
        lost = asyncio.Event()
        async with connection(self._pool) as session:
            try:
                session.add_termination_listener(lambda _: lost.set())
                await session.add_listener(CHANNEL, lambda *arguments: on_change(UUID(arguments[-1])))
                on_gap()
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_HEARTBEAT_SECONDS):
                            await lost.wait()
                    await session.execute("SELECT 1")  # outside of a transaction, which would delay notifications
            finally:
                terminate(session)  # do not return a lost or listening connection to the pool

    async def _fetch(self, statement: str, *arguments: object) -> list[TopUp]:
        async with connection(self._pool) as session:
            rows = await session.fetch(statement, *arguments)
        return [top_up_from_row(row) for row in rows]


async def _read_pages(session: Connection, requests: Sequence[TopUpPageRequest]) -> dict[TopUpPageRequest, TopUpPage]:
    """Return the page of each request, with one statement. The requests have one paging direction."""
    is_newer = requests[0].newer_than is not None
    bounds = [(each.newer_than if is_newer else each.older_than) or _LAST_ID for each in requests]
    rows = await session.fetch(
        _NEWER_PAGES if is_newer else _OLDER_PAGES,
        [each.account_id for each in requests],
        bounds,
        [each.limit + 1 for each in requests],
    )
    pages = {}
    for request, (_, group) in zip(requests, groupby(rows, key=lambda row: row["number"]), strict=True):
        of_page = list(group)
        has_opposite = of_page[0]["has_opposite"]
        found = [top_up_from_row(row) for row in of_page if row["id"] is not None]  # newest first
        has_more = len(found) > request.limit
        pages[request] = (
            TopUpPage(tuple(found[-request.limit :]), has_older=has_opposite, has_newer=has_more)
            if is_newer
            else TopUpPage(tuple(found[: request.limit]), has_older=has_more, has_newer=has_opposite)
        )
    return pages


def _find_with_key(key: IdempotencyKey, rows: Sequence[asyncpg.Record]) -> TopUp | None:
    """Return the top-up of a key. If two forms of the key have one each, return that of the earlier form."""
    found = next((row for row in rows if row["idempotency_key"] == key.earlier), rows[0] if rows else None)
    return None if found is None else top_up_from_row(found)
