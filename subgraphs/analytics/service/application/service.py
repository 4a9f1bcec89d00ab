"""Use cases of analytics.

An epoch is one uninterrupted sequence of the ledger's operations. A restore from an older backup begins another epoch.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final
from uuid import UUID

from kit.auth.principal import Principal
from subgraphs.analytics.service.adapters.bank_ledger import BankLedger
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.application.account_owners import AccountOwners
from subgraphs.analytics.service.application.epoch import EpochChanged, EpochFollower
from subgraphs.analytics.service.application.subscription_hub import SubscriptionHub
from subgraphs.analytics.service.domain.model import (
    AccountPosition,
    OperationFilter,
    Page,
    PageRequest,
    Row,
    StreamStart,
)
from subgraphs.analytics.service.domain.statistics import Statistics, StatisticsRange, make_buckets
from wallet import paging
from wallet.errors import TEMPORARY_ERRORS, FieldViolation, InvalidInput, LedgerRestored, WalletError

_COMPARISON_TIMEOUT_SECONDS: Final = 0.5
"""Time that the comparison with the ledger may delay a read."""


class Analytics:
    """Reads the history: pages of an account's operations, its statistics, and its new operations.

    Customers read their own accounts only.
    """

    def __init__(
        self,
        history: History,
        ledger: BankLedger,
        epochs: EpochFollower,
        hub: SubscriptionHub,
        owners: AccountOwners,
    ) -> None:
        self._history = history
        self._ledger = ledger
        self._epochs = epochs
        self._hub = hub
        self._owners = owners

    async def list_operations(self, caller: Principal, request: PageRequest) -> Page:
        """Return a page of an account's operations, newest first.

        Args:
            caller: caller of the current request.
            request: the page.

        Raises:
            InvalidInput: the limit, the versions or the conditions are invalid or contradict each other.
            AccountNotFound: the account does not exist, or belongs to another user.
            LedgerRestored: the version belongs to another epoch than the ledger's, or is above the account's version
                in the ledger.
            WalletError: one of `TEMPORARY_ERRORS`: ClickHouse or the bank gave no response.
        """
        (page,) = await self._list_pages(caller, [request])
        if isinstance(page, WalletError):
            raise page
        return page

    async def list_pages(
        self, caller: Principal, requests: Sequence[PageRequest | InvalidInput]
    ) -> list[Page | WalletError]:
        """Return a page, or the error that `list_operations` would raise, for each request. The bank is called once.

        Args:
            caller: caller of the current request.
            requests: the pages, within the limits of `paging.check_batch`; an error instead of a request is returned.

        Raises:
            Unavailable: ClickHouse gave no response.
        """
        pages = iter(await self._list_pages(caller, [each for each in requests if isinstance(each, PageRequest)]))
        return [next(pages) if isinstance(each, PageRequest) else each for each in requests]

    async def _list_pages(self, caller: Principal, requests: Sequence[PageRequest]) -> list[Page | WalletError]:
        violations = {request: _violations(request) for request in requests}
        valid = [request for request, violation in violations.items() if not violation]
        positions = await self._owners.read_positions(caller, [each.account_id for each in valid]) if valid else {}
        stored_epoch = await self._epochs.current() if valid else ""
        known: dict[PageRequest, AccountPosition | None] = {}
        results: dict[PageRequest, Page | WalletError] = {
            request: InvalidInput(tuple(violation)) for request, violation in violations.items() if violation
        }
        for request in valid:
            position = positions[request.account_id]
            if isinstance(position, WalletError):
                results[request] = position
            elif self._is_restored(request, position):
                results[request] = LedgerRestored()
            else:
                known[request] = position if position and position.epoch == stored_epoch else None
        sized = [replace(each, limit=paging.page_size(each.limit)) for each in known]
        read = await self._history.get_pages(sized, [None if each is None else each.version for each in known.values()])
        pages = [replace(page, epoch=stored_epoch) for page in read]
        results |= zip(known, await self._with_completeness(pages, known), strict=True)
        return [results[request] for request in requests]

    def _is_restored(self, request: PageRequest, position: AccountPosition | None) -> bool:
        """Return whether the ledger was restored after the caller got the version of the request."""
        older_than, newer_than = request.older_than, request.newer_than
        is_relative = older_than is not None or newer_than  # version 0 is the start of the history in each epoch
        if is_relative and request.epoch != (position.epoch if position else self._epochs.followed):
            return True
        # A version above the ledger's was in the ledger once, so a restore has removed it.
        return position is not None and max(older_than or 0, newer_than or 0) > position.version

    async def _with_completeness(
        self, pages: Sequence[Page], requests: Mapping[PageRequest, AccountPosition | None]
    ) -> list[Page]:
        """Return the pages with their `is_complete`. A page without a position of its account is not complete.

        Args:
            pages: pages in the order of the requests.
            requests: position of the account of each request.
        """
        counted = await asyncio.gather(*map(self._count_required, pages, requests, requests.values()))
        ahead = {
            (request.account_id, highest)
            for (request, position), (_, highest) in zip(requests.items(), counted, strict=True)
            if position is not None and highest > position.version
        }
        are_in_ledger = await self._are_in_ledger(ahead)
        return [
            replace(page, is_complete=is_stored and (are_in_ledger or (request.account_id, highest) not in ahead))
            for page, request, (is_stored, highest) in zip(pages, requests, counted, strict=True)
        ]

    async def _count_required(
        self, page: Page, request: PageRequest, position: AccountPosition | None
    ) -> tuple[bool, int]:
        """Return whether every operation of the page's range is stored up to the position, and the highest version that
        is stored.
        """
        if position is None:
            return False, 0
        required = page.required_versions(
            position.version, older_than=request.older_than, newer_than=request.newer_than
        )
        if request.conditions == OperationFilter():
            stored = sum(row.account_version in required for row in page.rows)
            highest = page.rows[0].account_version if page.rows else 0
        else:
            stored, highest = await self._history.count_versions(request.account_id, required)
        return stored == len(required), highest

    async def get_statistics(self, caller: Principal, account_id: UUID, range_: StatisticsRange) -> Statistics:
        """Return an account's turnover per bucket of a range.

        Args:
            caller: caller of the current request.
            account_id: id of the account.
            range_: the range of time and its granularity.

        Raises:
            InvalidInput: the range is empty, outside of the valid years, or has too many buckets.
            AccountNotFound: the account does not exist, or belongs to another user.
            WalletError: one of `TEMPORARY_ERRORS`: ClickHouse or the bank gave no response.
        """
        violations = range_.violations()
        if violations:
            raise InvalidInput(tuple(violations))
        position = await self._owners.read_position(caller, account_id)
        epoch = await self._epochs.current()
        version = position.version if position and position.epoch == epoch else None
        stored = await self._history.get_statistics(account_id, range_, version)
        if stored is not None:
            if version is not None:
                is_ahead = stored.as_of_version > version
                is_in_ledger = await self._are_in_ledger([(account_id, stored.as_of_version)] if is_ahead else [])
                stored = replace(stored, is_complete=is_in_ledger and stored.is_complete)
            return replace(stored, epoch=epoch)
        opening = await self._ledger.get_opening_balance(account_id)
        buckets = make_buckets(range_, opening.amount, ())
        return Statistics(opening.currency, buckets, as_of_version=0, is_complete=version == 0, epoch=epoch)

    async def _are_in_ledger(self, ahead: Collection[tuple[UUID, int]]) -> bool:
        """Return whether the ledger certainly has the stored versions of accounts that are above the ledger's versions.

        The ledger's version was read before the history, so it may be lower. The operations of the higher versions are
        compared with the ledger. A ledger that was restored from a backup lacks them; the bank then begins a new epoch.

        Args:
            ahead: accounts with their highest stored versions.
        """
        if not ahead:
            return True
        try:
            async with asyncio.timeout(_COMPARISON_TIMEOUT_SECONDS):
                await self._epochs.verify(await self._history.list_postings(ahead))
        except (EpochChanged, *TEMPORARY_ERRORS, TimeoutError):
            return False
        return True

    async def watch_operations(
        self, account_id: UUID, after_version: int | None, epoch: str
    ) -> AsyncGenerator[Sequence[Row] | StreamStart, None]:
        """Yield a `StreamStart`, then an account's operations after a version; without a version, new operations only.

        Operations that are available together are yielded together.

        `epoch` is the epoch of the ledger that the version belongs to. All rows belong to the epoch of the start.

        Raises:
            InvalidInput: the version is negative.
            AccountNotFound, LedgerRestored, SubscriberTooSlow, Unavailable: see `SubscriptionHub.subscribe`.
        """
        if after_version is not None and after_version < 0:
            raise InvalidInput.for_field("afterVersion", "must not be negative")
        async with aclosing(self._hub.subscribe(account_id, after_version, epoch)) as batches:
            async for batch in batches:
                yield batch


def _violations(request: PageRequest) -> list[FieldViolation]:
    violations = []
    if not 0 <= request.limit <= paging.MAX_PAGE:
        violations.append(FieldViolation("pageSize", f"must be 1 to {paging.MAX_PAGE}, or 0 for {paging.DEFAULT_PAGE}"))
    if request.older_than is not None and request.newer_than is not None:
        violations.append(FieldViolation("newerThan", "must not be combined with olderThan"))
    low, high = request.conditions.min_amount, request.conditions.max_amount
    if low is not None and high is not None and low > high:
        violations.append(FieldViolation("minAmount", "must not be above maxAmount"))
    since, until = request.conditions.since, request.conditions.until
    if since is not None and until is not None and since >= until:
        violations.append(FieldViolation("from", "must be before to"))
    return violations
