"""Replay of the ledger into the history, started by an administrator."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

import structlog

from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.bank_ledger import BankLedger
from subgraphs.analytics.service.adapters.clickhouse.copies import Copies, Copy, Window
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.application.comparison import Comparison, Difference, UnexpectedRows, batch_windows
from subgraphs.analytics.service.application.epoch import EpochChanged
from subgraphs.analytics.service.application.repair import Repair
from wallet.errors import WalletError

log = structlog.get_logger(__name__)

_DELETE_BATCH_ROWS: Final = 1_000
"""Maximum rows of one DELETE. The cost of a DELETE does not depend on the number of rows, but the URL of the request
lists all rows.
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a replay.

    Attributes:
        accounts: number of checked accounts of the ledger.
        pulled: number of operations that were read from the bank and inserted.
        removed: number of deleted rows, which differed from the ledger.
        lacking: number of operations that the ledger does not return, although the account's version includes them.
            Without `all_operations`, the number of accounts with such operations.
    """

    accounts: int = 0
    pulled: int = 0
    removed: int = 0
    lacking: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a replay.

    Attributes:
        outcome: `complete`: the history has all operations of the ledger; `incomplete`: the ledger does not return some
            operations, although the accounts' versions include them; `unavailable`: ClickHouse or the bank failed, or
            the ledger's epoch changed: run the replay again.
        accounts: final value of `Progress.accounts`.
        pulled: final value of `Progress.pulled`.
        removed: final value of `Progress.removed`.
        lacking: final value of `Progress.lacking`.
        seconds: duration of the replay.
    """

    outcome: Literal["complete", "incomplete", "unavailable"]
    accounts: int
    pulled: int
    removed: int
    lacking: int
    seconds: float


Report = Progress | Outcome


class Replay:
    """Inserts operations that the history lacks. With `all_operations`, also replaces rows that differ from the ledger.

    One replay runs at a time. It may end at any time and run again: each insert is atomic, and a row that is inserted
    twice counts once.
    """

    def __init__(self, history: History, copies: Copies, ledger: BankLedger, repair: Repair) -> None:
        """Args:
        history: the history to complete.
        copies: all stored rows of the history.
        ledger: the bank's ledger.
        repair: finds and fills gaps.
        """
        self._history = history
        self._copies = copies
        self._ledger = ledger
        self._repair = repair
        self._comparison = Comparison(copies, ledger)
        self._lock = asyncio.Lock()

    @property
    def is_replaying(self) -> bool:
        """Whether a replay is running; a second one would wait for its end."""
        return self._lock.locked()

    async def replay(self, account_id: UUID | None, *, all_operations: bool) -> AsyncGenerator[Report, None]:
        """Yield the progress after each page, then the outcome. Closing the generator ends the replay.

        Args:
            account_id: the account to replay; None replays all accounts.
            all_operations: compare stored operations, too: insert the ledger's row where a copy differs, and delete
                rows that the ledger does not have.
        """
        async with self._lock:
            run = _Run()
            started = time.monotonic()
            outcome: Literal["complete", "incomplete", "unavailable"]
            try:
                steps = (
                    self._replace_differing(run, account_id)
                    if all_operations
                    else self._insert_missing(run, account_id)
                )
                async for _ in steps:
                    yield run.progress()
                outcome = "incomplete" if run.lacking else "complete"
            except (WalletError, EpochChanged) as error:
                log.warning("replay interrupted", error=f"{type(error).__name__}: {error}")
                outcome = "unavailable"
            seconds = round(time.monotonic() - started, 3)
            log.info("replay finished", outcome=outcome, accounts=run.accounts, pulled=run.pulled, removed=run.removed)
            yield Outcome(outcome, run.accounts, run.pulled, run.removed, run.lacking, seconds)

    async def _versions(self, account_id: UUID | None) -> AsyncIterator[dict[UUID, int]]:
        if account_id is not None:
            yield await self._ledger.get_versions([account_id])
            return
        async for versions in self._ledger.list_all_versions():
            yield versions

    async def _insert_missing(self, run: "_Run", account_id: UUID | None) -> AsyncGenerator[None, None]:
        async for versions in self._versions(account_id):
            incomplete = await self._repair.find_incomplete(versions)
            for id_, version in incomplete.items():
                async for pulled in self._repair.insert_missing(id_, version):
                    run.count_inserted(pulled)
                    yield
            for id_, version in (await self._repair.find_incomplete(incomplete)).items():
                # The result also has accounts with more operations in the history than in the ledger; these lack none.
                run.lacking += await self._history.get_complete_version(id_) < version
            run.accounts += len(versions)
            yield

    async def _replace_differing(self, run: "_Run", account_id: UUID | None) -> AsyncGenerator[None, None]:
        wrong: list[Copy] = []
        epoch = await self._repair.epochs.current()
        async for versions in self._versions(account_id):
            for batch in batch_windows(Window(id_, 0, version) for id_, version in versions.items()):
                differences = await self._comparison.find_differences(batch)
                rows = [each.expected for each in differences if each.expected]
                # Reads return the row that was inserted last, so the correct row is readable at any time.
                if rows:
                    async with self._repair.epochs.writing(epoch):
                        await self._history.insert(rows)
                    run.count_inserted(len(rows))
                run.lacking += len(differences) - len(rows)
                wrong += _copies_to_delete(differences)
                yield
                while any(each.expected and each.has_more for each in differences):
                    await self._delete(run, wrong)
                    differences = await self._comparison.find_differences(batch)
                    wrong = _copies_to_delete(differences)  # the correct rows are stored since the first comparison
                    yield
                if len(wrong) >= _DELETE_BATCH_ROWS:
                    await self._delete(run, wrong)
                    wrong.clear()
            run.accounts += len(versions)
            yield
        await self._delete(run, wrong)
        async for page in self._comparison.unexpected_rows(account_id):
            if isinstance(page, UnexpectedRows):
                await self._delete(run, page.copies)
                yield

    async def _delete(self, run: "_Run", copies: Sequence[Copy]) -> None:
        for start in range(0, len(copies), _DELETE_BATCH_ROWS):
            removed = copies[start : start + _DELETE_BATCH_ROWS]
            await self._copies.delete_copies(removed)
            metrics.REMOVED.inc(len(removed))
            run.removed += len(removed)


def _copies_to_delete(differences: Iterable[Difference]) -> list[Copy]:
    """Return the copies that differ from the ledger's row. If it returned no row, the copies are kept."""
    return [copy for each in differences if each.expected for copy in each.wrong]


@dataclass(slots=True)
class _Run:
    """Counters of a running replay."""

    accounts: int = 0
    pulled: int = 0
    removed: int = 0
    lacking: int = 0

    def count_inserted(self, operations: int) -> None:
        metrics.REPLAYED.inc(operations)
        self.pulled += operations

    def progress(self) -> Progress:
        return Progress(self.accounts, self.pulled, self.removed, self.lacking)
