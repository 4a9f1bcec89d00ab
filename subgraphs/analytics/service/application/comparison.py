"""The history held against the ledger, operation by operation."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from subgraphs.analytics.service.adapters.clickhouse.copies import Copies, Copy, Window
from subgraphs.analytics.service.adapters.ledger import Ledger
from subgraphs.analytics.service.domain.model import Row
from subgraphs.analytics.service.domain.rows import rows_of

_OPERATIONS: Final = 1_000
"""In one window, and so in one answer of the bank."""
_PACK: Final = 2_000
"""Operations that one statement asks for, and that are in memory."""
_WINDOWS: Final = 500
_ACCOUNTS: Final = 1_000
_COPIES: Final = 500
_AT_ONCE: Final = 8
"""Questions to the bank."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An operation of which something else is stored than the ledger says.

    Attributes:
        account_id: whose it is.
        version: which one.
        expected: the ledger's word; None where it counts the operation and does not have it.
        wrong: the stored copies that say something else. Without any, nothing is stored.
    """

    account_id: UUID
    version: int
    expected: Row | None
    wrong: tuple[Copy, ...]


@dataclass(frozen=True, slots=True)
class Strange:
    """A page of what the ledger does not count, of one account.

    Attributes:
        account_id: whose it would be.
        version: of the account in the ledger, at a moment after the copies were seen; None of an account unknown to it.
        copies: their versions are below 1 or above the account's.
    """

    account_id: UUID
    version: int | None
    copies: tuple[Copy, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """So many more accounts of the history are known to the ledger, up to this one; or have been told before."""

    up_to: UUID
    accounts: int


class Comparison:
    """Both sides by pages, in short questions and bounded memory. Only reads.

    Raises what `Copies` and `BankClient` raise.
    """

    def __init__(self, copies: Copies, ledger: Ledger) -> None:
        self._copies = copies
        self._ledger = ledger

    async def differences(self, windows: Sequence[Window]) -> list[Difference]:
        """What differs within one of the `packs`. Versions that the ledger counts are expected to be stored."""
        stored = defaultdict[tuple[UUID, int], list[Copy]](list)
        for copy in await self._copies.stored(windows):
            stored[copy.row.account_id, copy.row.account_version].append(copy)
        room = asyncio.Semaphore(_AT_ONCE)

        async def expected(window: Window) -> dict[int, Row]:
            async with room:
                return await self._expected(window)

        differences = []
        for window, rows in zip(windows, await asyncio.gather(*map(expected, windows)), strict=True):
            for version in range(window.after + 1, window.up_to + 1):
                copies, row = stored[window.account_id, version], rows.get(version)
                wrong = tuple(copy for copy in copies if copy.row != row)
                if wrong or not copies:
                    differences.append(Difference(window.account_id, version, row, wrong))
        return differences

    async def strangers(self, account_id: UUID | None = None) -> AsyncGenerator[Strange | Checked, None]:
        """What is stored and not counted by the ledger: accounts that it does not know, versions that it has not
        reached. Of one account, or of all.
        """
        after: UUID | None = None
        while True:
            if account_id is None:
                extents = await self._copies.accounts(after, _ACCOUNTS)
            else:
                extent = await self._copies.extent(account_id)
                extents = [extent] if extent else []
            # The ledger is asked later than the history: whatever was stored by then, it had before.
            versions = await self._ledger.versions([extent.account_id for extent in extents])
            for extent in extents:
                version = versions.get(extent.account_id)
                if extent.least < 1 or extent.greatest > (version or 0):
                    async for copies in self._beyond(extent.account_id, version or 0, extent.greatest):
                        yield Strange(extent.account_id, version, copies)
            if extents:
                after = extents[-1].account_id
                yield Checked(after, len(extents))
            if account_id is not None or len(extents) < _ACCOUNTS:
                return

    async def _expected(self, window: Window) -> dict[int, Row]:
        """The ledger's operations in the window, by version."""
        rows: dict[int, Row] = {}
        reached = window.after
        while reached < window.up_to:
            events = await self._ledger.events(window.account_id, reached, window.up_to - reached)
            page = [row for event in events for row in rows_of(event) if row.account_id == window.account_id]
            if not page or page[-1].account_version <= reached:
                break  # the ledger lacks what it counts
            rows |= {row.account_version: row for row in page}
            reached = page[-1].account_version
        return rows

    async def _beyond(self, account_id: UUID, version: int, greatest: int) -> AsyncGenerator[tuple[Copy, ...], None]:
        """Up to the greatest version that was seen before the ledger was asked: the account may have moved since."""
        copies = await self._copies.beyond(account_id, version, None, _COPIES)
        while copies:
            seen = tuple(copy for copy in copies if copy.row.account_version <= greatest)
            if seen:
                yield seen
            if len(copies) < _COPIES or len(seen) < len(copies):
                return
            copies = await self._copies.beyond(account_id, version, copies[-1].row.account_version, _COPIES)


def packs(windows: Iterable[Window]) -> Iterator[list[Window]]:
    """The same operations in lists that one statement can ask for: of many small accounts, or a part of a large one."""
    pack: list[Window] = []
    operations = 0
    for each in windows:
        for after in range(each.after, each.up_to, _OPERATIONS):
            window = Window(each.account_id, after, min(after + _OPERATIONS, each.up_to))
            size = window.up_to - window.after
            if pack and (operations + size > _PACK or len(pack) == _WINDOWS):
                yield pack
                pack, operations = [], 0
            pack.append(window)
            operations += size
    if pack:
        yield pack
