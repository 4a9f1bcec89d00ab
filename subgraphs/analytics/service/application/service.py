"""Use cases of analytics.

An epoch is one uninterrupted sequence of the ledger's operations. A restore from an older backup begins another epoch.
"""

import asyncio
from collections.abc import AsyncGenerator
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
from subgraphs.analytics.service.domain.model import OperationFilter, Page, Row, StreamStart
from subgraphs.analytics.service.domain.statistics import Statistics, StatisticsRange, make_buckets
from wallet.errors import TEMPORARY_ERRORS, FieldViolation, InvalidInput, LedgerRestored

_DEFAULT_PAGE_SIZE: Final = 50
_MAX_PAGE_SIZE: Final = 1_000
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

    async def list_operations(
        self,
        caller: Principal,
        account_id: UUID,
        *,
        limit: int,
        older_than: int | None,
        newer_than: int | None,
        epoch: str,
        conditions: OperationFilter,
    ) -> Page:
        """Return a page of an account's operations, newest first.

        Args:
            caller: caller of the current request.
            account_id: id of the account.
            limit: maximum number of rows; 0 for 50.
            older_than: returns the newest rows below this version.
            newer_than: returns the oldest rows above this version; 0: the oldest of all. Not together with
                `older_than`.
            epoch: epoch of the ledger that `older_than` or `newer_than` belongs to.
            conditions: conditions that each row satisfies.

        Raises:
            InvalidInput: the limit, the versions or the conditions are invalid or contradict each other.
            AccountNotFound: the account does not exist, or belongs to another user.
            LedgerRestored: the version belongs to another epoch than the ledger's, or is above the account's version
                in the ledger.
            WalletError: one of `TEMPORARY_ERRORS`: ClickHouse or the bank gave no response.
        """
        violations = _violations(limit, older_than, newer_than, conditions)
        if violations:
            raise InvalidInput(tuple(violations))
        position = await self._owners.read_position(caller, account_id)
        stored_epoch = await self._epochs.current()
        is_relative = older_than is not None or newer_than  # version 0 is the start of the history in each epoch
        if is_relative and epoch != (position.epoch if position else self._epochs.followed):
            raise LedgerRestored
        # A version above the ledger's was in the ledger once, so a restore has removed it.
        if position is not None and max(older_than or 0, newer_than or 0) > position.version:
            raise LedgerRestored
        page = await self._history.get_page(
            account_id,
            limit=limit or _DEFAULT_PAGE_SIZE,
            older_than=older_than,
            newer_than=newer_than,
            conditions=conditions,
        )
        page = replace(page, epoch=stored_epoch)
        if position is None or position.epoch != stored_epoch:
            return page
        required = page.required_versions(position.version, older_than=older_than, newer_than=newer_than)
        if conditions == OperationFilter():
            stored = sum(row.account_version in required for row in page.rows)
            highest = page.rows[0].account_version if page.rows else 0
        else:
            stored, highest = await self._history.count_versions(account_id, required)
        is_in_ledger = await self._is_in_ledger(account_id, highest, position.version)
        return replace(page, is_complete=is_in_ledger and stored == len(required))

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
                is_in_ledger = await self._is_in_ledger(account_id, stored.as_of_version, version)
                stored = replace(stored, is_complete=is_in_ledger and stored.is_complete)
            return replace(stored, epoch=epoch)
        opening = await self._ledger.get_opening_balance(account_id)
        buckets = make_buckets(range_, opening.amount, ())
        return Statistics(opening.currency, buckets, as_of_version=0, is_complete=version == 0, epoch=epoch)

    async def _is_in_ledger(self, account_id: UUID, stored_version: int, ledger_version: int) -> bool:
        """Return whether the ledger certainly has the highest stored version of an account.

        The ledger's version was read before the history, so it may be lower. If the stored version is higher, its
        operation is compared with the ledger. A ledger that was restored from a backup lacks this operation; the bank
        then begins a new epoch.
        """
        if stored_version <= ledger_version:
            return True
        try:
            async with asyncio.timeout(_COMPARISON_TIMEOUT_SECONDS):
                await self._epochs.verify(await self._history.list_postings([(account_id, stored_version)]))
        except (EpochChanged, *TEMPORARY_ERRORS, TimeoutError):
            return False
        return True

    async def watch_operations(
        self, account_id: UUID, after_version: int | None, epoch: str
    ) -> AsyncGenerator[Row | StreamStart, None]:
        """Yield a `StreamStart`, then an account's operations after a version; without a version, new operations only.

        `epoch` is the epoch of the ledger that the version belongs to. All rows belong to the epoch of the start.

        Raises:
            InvalidInput: the version is negative.
            AccountNotFound, LedgerRestored, SubscriberTooSlow, Unavailable: see `SubscriptionHub.subscribe`.
        """
        if after_version is not None and after_version < 0:
            raise InvalidInput.for_field("afterVersion", "must not be negative")
        async with aclosing(self._hub.subscribe(account_id, after_version, epoch)) as rows:
            async for row in rows:
                yield row


def _violations(
    limit: int,
    older_than: int | None,
    newer_than: int | None,
    conditions: OperationFilter,
) -> list[FieldViolation]:
    violations = []
    if not 0 <= limit <= _MAX_PAGE_SIZE:
        violations.append(FieldViolation("pageSize", f"must be 1 to {_MAX_PAGE_SIZE}, or 0 for {_DEFAULT_PAGE_SIZE}"))
    if older_than is not None and newer_than is not None:
        violations.append(FieldViolation("newerThan", "must not be combined with olderThan"))
    low, high = conditions.min_amount, conditions.max_amount
    if low is not None and high is not None and low > high:
        violations.append(FieldViolation("minAmount", "must not be above maxAmount"))
    since, until = conditions.since, conditions.until
    if since is not None and until is not None and since >= until:
        violations.append(FieldViolation("from", "must be before to"))
    return violations
