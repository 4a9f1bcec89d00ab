"""What callers may ask of the history."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final
from uuid import UUID

from kit.auth.principal import Principal
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.adapters.ledger import Ledger
from subgraphs.analytics.service.application.access import Access
from subgraphs.analytics.service.application.watch import Watch
from subgraphs.analytics.service.domain.model import OperationFilter, Page, Row, StreamStart
from subgraphs.analytics.service.domain.statistics import Frame, Statistics, buckets
from wallet.errors import FieldViolation, InvalidInput

_PAGE: Final = 50
_MAX_PAGE: Final = 1_000


class Analytics:
    """The use cases: a page of the history, its statistics, and the history as it happens. An owner reads their own
    accounts only.
    """

    def __init__(self, history: History, ledger: Ledger, watch: Watch, access: Access) -> None:
        self._history = history
        self._ledger = ledger
        self._watch = watch
        self._access = access

    async def operations(
        self,
        caller: Principal,
        account_id: UUID,
        *,
        limit: int,
        older_than: int | None,
        newer_than: int | None,
        conditions: OperationFilter,
    ) -> Page:
        """A page of the account's operations, newest first.

        Args:
            caller: who asks, in the current call.
            account_id: whose history.
            limit: rows at most; 0 for the usual number.
            older_than: the page ends before this version.
            newer_than: the page begins after this one. Not together with `older_than`.
            conditions: what the rows must satisfy.

        Raises:
            InvalidInput: the limit, the bounds or the conditions contradict the contract or themselves.
            AccountNotFound: there is no such account, or it is another's.
            Unavailable: the history or the bank does not answer.
        """
        violations = _violations(limit, older_than, newer_than, conditions)
        if violations:
            raise InvalidInput(tuple(violations))
        await self._access.check(caller, account_id)
        return await self._history.page(
            account_id,
            limit=limit or _PAGE,
            older_than=older_than,
            newer_than=newer_than,
            conditions=conditions,
        )

    async def statistics(self, caller: Principal, account_id: UUID, frame: Frame) -> Statistics:
        """What went in and out of the account, in each bucket of the frame.

        Args:
            caller: who asks, in the current call.
            account_id: whose statistics.
            frame: the range, and how it is divided.

        Raises:
            InvalidInput: the range is upside down, out of the calendar, or has too many buckets.
            AccountNotFound: there is no such account, or it is another's.
            Unavailable: the history or the bank does not answer.
        """
        violations = frame.violations()
        if violations:
            raise InvalidInput(tuple(violations))
        await self._access.check(caller, account_id)
        stored = await self._history.statistics(account_id, frame)
        if stored is not None:
            return stored
        opening = await self._ledger.opening(account_id)
        return Statistics(opening.currency, buckets(frame, opening.amount, ()), as_of_version=0, is_complete=True)

    async def watch(self, account_id: UUID, after_version: int | None) -> AsyncGenerator[Row | StreamStart, None]:
        """The account's operations after a version (None: from now on), then the live ones, in the caller's name.

        Raises:
            InvalidInput: the version is negative.
            AccountNotFound, SubscriberTooSlow, Unavailable: as `Watch.operations`.
        """
        if after_version is not None and after_version < 0:
            raise InvalidInput.for_field("after", "must not be negative")
        async with aclosing(self._watch.operations(account_id, after_version)) as rows:
            async for row in rows:
                yield row


def _violations(
    limit: int,
    older_than: int | None,
    newer_than: int | None,
    conditions: OperationFilter,
) -> list[FieldViolation]:
    violations = []
    if not 0 <= limit <= _MAX_PAGE:
        violations.append(FieldViolation("limit", f"must be 1 to {_MAX_PAGE}"))
    if older_than is not None and newer_than is not None:
        violations.append(FieldViolation("before", "does not go together with after"))
    low, high = conditions.min_amount, conditions.max_amount
    if low is not None and high is not None and low > high:
        violations.append(FieldViolation("minAmount", "must not be above maxAmount"))
    since, until = conditions.since, conditions.until
    if since is not None and until is not None and since >= until:
        violations.append(FieldViolation("from", "must be before to"))
    return violations
