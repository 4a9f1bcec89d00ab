"""Compares the stored history with the bank's ledger, operation by operation."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from subgraphs.analytics.service.adapters.bank_ledger import BankLedger
from subgraphs.analytics.service.adapters.clickhouse.copies import MAX_COPIES, Copies, Copy, Window
from subgraphs.analytics.service.domain.model import Row
from subgraphs.analytics.service.domain.rows import rows_from_event

_WINDOW_OPERATIONS: Final = 1_000
"""Maximum operations of a window (a range of versions of one account), and so of one response of the bank."""
_BATCH_OPERATIONS: Final = 2_000
"""Maximum operations of a batch, which one statement reads into memory."""
_BATCH_WINDOWS: Final = 500
_ACCOUNTS_PAGE: Final = 1_000
_COPIES_PAGE: Final = 500
_CONCURRENT_BANK_CALLS: Final = 8


@dataclass(frozen=True, slots=True)
class Difference:
    """An operation with stored copies that differ from the ledger, or without a stored copy.

    Attributes:
        account_id: account of the operation.
        version: version of the account after the operation.
        expected: row of the ledger; None if the ledger does not return the operation, although the account's version
            includes it.
        wrong: stored copies that differ. Empty if nothing is stored.
        has_more: whether further copies that differ may be stored.
    """

    account_id: UUID
    version: int
    expected: Row | None
    wrong: tuple[Copy, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class UnexpectedRows:
    """Stored copies of one account, with versions that the account does not have in the ledger.

    Attributes:
        account_id: account of the copies.
        version: version of the account in the ledger, read after the copies; None if the ledger lacks the account.
        copies: copies with versions below 1 or above the account's version.
    """

    account_id: UUID
    version: int | None
    copies: tuple[Copy, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Progress of a scan: `accounts` accounts were checked since the previous checkpoint; `up_to` is the last one."""

    up_to: UUID
    accounts: int


class Comparison:
    """Compares history and ledger in pages, with short queries and bounded memory. Only reads.

    Raises what `Copies` and `BankLedger` raise.
    """

    def __init__(self, copies: Copies, ledger: BankLedger) -> None:
        self._copies = copies
        self._ledger = ledger

    async def find_differences(self, windows: Sequence[Window]) -> list[Difference]:
        """Return the differences within a batch of windows. Every version in a window is expected to be stored."""
        stored = defaultdict[tuple[UUID, int], list[Copy]](list)
        for copy in await self._copies.list_copies(windows):
            stored[copy.row.account_id, copy.row.account_version].append(copy)
        slots = asyncio.Semaphore(_CONCURRENT_BANK_CALLS)

        async def expected_rows(window: Window) -> dict[int, Row]:
            async with slots:
                return await self._expected_rows(window)

        differences = []
        for window, rows in zip(windows, await asyncio.gather(*map(expected_rows, windows)), strict=True):
            for version in range(window.after + 1, window.up_to + 1):
                copies, row = stored[window.account_id, version], rows.get(version)
                wrong = tuple(copy for copy in copies if copy.row != row)
                if wrong or not copies:
                    has_more = len(copies) >= MAX_COPIES
                    differences.append(Difference(window.account_id, version, row, wrong, has_more))
        return differences

    async def unexpected_rows(
        self, account_id: UUID | None = None
    ) -> AsyncGenerator[UnexpectedRows | Checkpoint, None]:
        """Yield stored rows of accounts and versions that the ledger does not have, and a checkpoint for each page.

        Args:
            account_id: the account to scan; None scans all accounts.
        """
        after: UUID | None = None
        while True:
            if account_id is None:
                ranges = await self._copies.list_version_ranges(after, _ACCOUNTS_PAGE)
            else:
                version_range = await self._copies.get_version_range(account_id)
                ranges = [version_range] if version_range else []
            # The ledger is read after the history, so a stored version above the ledger's is not a new operation.
            versions = await self._ledger.get_versions([each.account_id for each in ranges])
            for each in ranges:
                version = versions.get(each.account_id)
                if each.lowest < 1 or each.highest > (version or 0):
                    async for copies in self._copies_outside(each.account_id, version or 0, each.highest):
                        yield UnexpectedRows(each.account_id, version, copies)
            if ranges:
                after = ranges[-1].account_id
                yield Checkpoint(after, len(ranges))
            if account_id is not None or len(ranges) < _ACCOUNTS_PAGE:
                return

    async def _expected_rows(self, window: Window) -> dict[int, Row]:
        """Return the ledger's operations in the window, by version."""
        rows: dict[int, Row] = {}
        reached = window.after
        while reached < window.up_to:
            events = await self._ledger.list_events(window.account_id, reached, window.up_to - reached)
            page = [row for event in events for row in rows_from_event(event) if row.account_id == window.account_id]
            if not page or page[-1].account_version <= reached:
                break  # the ledger does not return operations that the account's version includes
            rows |= {row.account_version: row for row in page}
            reached = page[-1].account_version
        return rows

    async def _copies_outside(
        self, account_id: UUID, version: int, highest: int
    ) -> AsyncGenerator[tuple[Copy, ...], None]:
        """Yield pages of copies outside of the ledger's versions, up to version `highest`.

        `highest` was read before the ledger's versions. Copies above it may belong to newer operations.
        """
        copies = await self._copies.list_copies_outside(account_id, version, None, _COPIES_PAGE)
        while copies:
            unexpected = tuple(copy for copy in copies if copy.row.account_version <= highest)
            if unexpected:
                yield unexpected
            if len(copies) < _COPIES_PAGE or len(unexpected) < len(copies):
                return
            last = copies[-1].row.account_version
            copies = await self._copies.list_copies_outside(account_id, version, last, _COPIES_PAGE)


def batch_windows(windows: Iterable[Window]) -> Iterator[list[Window]]:
    """Split or group windows into batches that one statement can read.

    A batch has the windows of many small accounts, or of a part of a large account.
    """
    batch: list[Window] = []
    operations = 0
    for each in windows:
        for after in range(each.after, each.up_to, _WINDOW_OPERATIONS):
            window = Window(each.account_id, after, min(after + _WINDOW_OPERATIONS, each.up_to))
            size = window.up_to - window.after
            if batch and (operations + size > _BATCH_OPERATIONS or len(batch) == _BATCH_WINDOWS):
                yield batch
                batch, operations = [], 0
            batch.append(window)
            operations += size
    if batch:
        yield batch
