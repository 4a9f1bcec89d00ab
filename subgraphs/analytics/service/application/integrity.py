"""Integrity check of the history against the ledger, in pages, while both are in use."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from kit.integrity.check import Finding, IntegrityCheck, Pending, Progress, Violation
from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.bank_ledger import BankLedger
from subgraphs.analytics.service.adapters.clickhouse.copies import Copies, Window
from subgraphs.analytics.service.application.comparison import (
    Checkpoint,
    Comparison,
    Difference,
    UnexpectedRows,
    batch_windows,
)
from subgraphs.analytics.service.domain.model import Row

_MAX_MISSING_WINDOWS: Final = 50_000
"""Maximum ranges of missing operations that wait in memory for the second comparison."""
_OPERATIONS: Final = "operations"
_ACCOUNTS: Final = "stored accounts"


class Invariant(StrEnum):
    """Invariants of the history. Together they state that the history has the same operations as the ledger.

    The version of an account counts the account's operations; each operation has one version of its account.
    """

    OPERATION_IS_STORED = "OPERATION_IS_STORED"
    """All versions of every account, from 1 to the account's version in the ledger, are stored."""
    COPY_IS_LEDGERS = "COPY_IS_LEDGERS"
    """Every stored copy of an operation equals the ledger's operation in all columns."""
    VERSION_IS_LEDGERS = "VERSION_IS_LEDGERS"
    """No version is stored that is above the account's version in the ledger."""
    ACCOUNT_IS_LEDGERS = "ACCOUNT_IS_LEDGERS"
    """No stored operation belongs to an account that the ledger does not have."""


def history_integrity(
    copies: Copies, ledger: BankLedger, *, wait_seconds: float, max_delay_seconds: float
) -> IntegrityCheck:
    """Return the check that the stored history equals the ledger (`Invariant`).

    Each account is compared up to the version that it had in the ledger when its page was read. Later operations are
    left to the next check. An operation that is missing in the history is looked up again after a wait. If it is still
    missing, it is a violation, or pending if it is younger than the maximum delay.

    The verdict has two counts: of the checked operations of the ledger, and of the checked accounts of the history.

    Args:
        copies: all stored rows.
        ledger: the bank's ledger.
        wait_seconds: wait before missing operations are compared again.
        max_delay_seconds: maximum age of a pending operation, by the clocks of the bank and of this process.
    """
    scan = _HistoryScan(Comparison(copies, ledger), ledger, wait_seconds, timedelta(seconds=max_delay_seconds))
    return IntegrityCheck(scan.find, (_OPERATIONS, _ACCOUNTS), metrics.INTEGRITY)


@dataclass(frozen=True, slots=True)
class _HistoryScan:
    """One pass over the ledger's operations and over the stored accounts."""

    comparison: Comparison
    ledger: BankLedger
    wait_seconds: float
    max_delay: timedelta

    async def find(self) -> AsyncGenerator[Finding, None]:
        async for finding in self._check_operations():
            yield finding
        async for finding in self._check_accounts():
            yield finding

    async def _check_operations(self) -> AsyncGenerator[Finding, None]:
        rows, missing = 0, list[Window]()
        async for versions in self.ledger.list_all_versions():
            for batch in batch_windows(Window(account_id, 0, version) for account_id, version in versions.items()):
                differences = await self.comparison.find_differences(batch)
                for violation in _wrong_copies(differences):
                    yield violation
                _add_missing(missing, differences)
                rows += _count_operations(batch)
                yield Progress(_OPERATIONS, str(batch[-1].account_id), rows)
                if len(missing) >= _MAX_MISSING_WINDOWS:
                    async for finding in self._check_missing_again(missing):
                        yield finding
                    missing.clear()
        async for finding in self._check_missing_again(missing):
            yield finding

    async def _check_missing_again(self, missing: list[Window]) -> AsyncGenerator[Finding, None]:
        """Compare the missing operations a second time, after the wait."""
        if not missing:
            return
        await asyncio.sleep(self.wait_seconds)
        rows = 0
        for batch in batch_windows(missing):
            differences = await self.comparison.find_differences(batch)
            oldest_pending = datetime.now(UTC) - self.max_delay
            for violation in _wrong_copies(differences):
                yield violation
            for each in differences:
                if each.wrong:
                    continue
                is_pending = each.expected and each.expected.occurred_at > oldest_pending
                yield Pending(_OPERATIONS) if is_pending else _missing_operation(each)
            rows += _count_operations(batch)
            yield Progress(f"{_OPERATIONS} that were missing", str(batch[-1].account_id), rows)

    async def _check_accounts(self) -> AsyncGenerator[Finding, None]:
        accounts = 0
        async for page in self.comparison.unexpected_rows():
            match page:
                case UnexpectedRows():
                    for violation in _unexpected_copies(page):
                        yield violation
                case Checkpoint():
                    accounts += page.accounts
                    yield Progress(_ACCOUNTS, str(page.up_to), accounts)


def _count_operations(windows: Iterable[Window]) -> int:
    return sum(window.up_to - window.after for window in windows)


def _add_missing(missing: list[Window], differences: Iterable[Difference]) -> None:
    """Append the operations without stored copies; consecutive versions are one window."""
    for each in differences:
        if each.wrong:
            continue
        last = missing[-1] if missing else None
        if last and (last.account_id, last.up_to) == (each.account_id, each.version - 1):
            missing[-1] = Window(each.account_id, last.after, each.version)
        else:
            missing.append(Window(each.account_id, each.version - 1, each.version))


def _wrong_copies(differences: Iterable[Difference]) -> Iterator[Violation]:
    for each in differences:
        for copy in each.wrong:
            found, expected = _describe_difference(copy.row, each.expected)
            yield Violation(Invariant.COPY_IS_LEDGERS, _row_id(copy.row), found, expected)


def _missing_operation(difference: Difference) -> Violation:
    row: dict[str, str | int] = {"account_id": str(difference.account_id), "version": difference.version}
    expected = difference.expected
    text = _text(expected) if expected else "an operation: the account's version includes it, but the ledger lacks it"
    return Violation(Invariant.OPERATION_IS_STORED, row, "nothing", text)


def _unexpected_copies(page: UnexpectedRows) -> Iterator[Violation]:
    if page.version is None:
        invariant, expected = Invariant.ACCOUNT_IS_LEDGERS, "nothing: the ledger has no such account"
    else:
        invariant, expected = (
            Invariant.VERSION_IS_LEDGERS,
            f"nothing: in the ledger the account is at version {page.version}",
        )
    for copy in page.copies:
        yield Violation(invariant, _row_id(copy.row), _text(copy.row), expected)


def _row_id(row: Row) -> dict[str, str | int]:
    return {"account_id": str(row.account_id), "version": row.account_version}


def _describe_difference(found: Row, expected: Row | None) -> tuple[str, str]:
    """Return the values of the differing columns: those of the stored row, and those of the ledger's row."""
    if expected is None:
        return _text(found), "an operation: the account's version includes it, but the ledger lacks it"
    stored, ledgers = _values(found), _values(expected)
    names = [name for name in stored if stored[name] != ledgers[name]]
    return _join({name: stored[name] for name in names}), _join({name: ledgers[name] for name in names})


def _text(row: Row) -> str:
    return _join(_values(row))


def _join(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _values(row: Row) -> dict[str, str]:
    return {
        "operation_id": str(row.operation_id),
        "type": row.type.value,
        "direction": row.direction.value,
        "amount": _amount_text(row.amount),
        "currency": row.currency,
        "balance_after": _amount_text(row.balance_after),
        "counterparty_id": str(row.counterparty_id),
        "occurred_at": row.occurred_at.isoformat(),
    }


def _amount_text(amount: Decimal) -> str:
    """Return the amount without trailing zeros, so that equal numbers have the same text."""
    return f"{amount.normalize():f}"
