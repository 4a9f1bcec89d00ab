"""The history proved against the ledger, page by page, while both are in use."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from kit.integrity.check import Finding, IntegrityCheck, Pending, Progress, Violation
from subgraphs.analytics.service import metrics
from subgraphs.analytics.service.adapters.clickhouse.copies import Copies, Window
from subgraphs.analytics.service.adapters.ledger import Ledger
from subgraphs.analytics.service.application.comparison import Checked, Comparison, Difference, Strange, packs
from subgraphs.analytics.service.domain.model import Row

_MOST_MISSING: Final = 50_000
"""Stretches of missing operations that may wait in memory to be looked at again."""
_OPERATIONS: Final = "operations"
_ACCOUNTS: Final = "stored accounts"


class Law(StrEnum):
    """What holds of the history at every moment. Together they say that it is the ledger's, no less and no more."""

    OPERATION_IS_STORED = "OPERATION_IS_STORED"
    """Of every account, versions 1 to the ledger's are there."""
    COPY_IS_LEDGERS = "COPY_IS_LEDGERS"
    """Every copy of an operation says in all what the ledger says, and so no two of them differ."""
    VERSION_IS_LEDGERS = "VERSION_IS_LEDGERS"
    """Nothing is stored of an account beyond the version that it has in the ledger."""
    ACCOUNT_IS_LEDGERS = "ACCOUNT_IS_LEDGERS"
    """Nothing is stored of an account that the ledger does not know."""


def history_integrity(
    copies: Copies, ledger: Ledger, *, wait_seconds: float, on_its_way_seconds: float
) -> IntegrityCheck:
    """Proves that the stored history is the ledger's (`Law`).

    Each account is compared up to the version that the ledger has when the account's page is read; what happens later
    is the next proof's. An operation that is not stored then is looked at again after a wait. If it still is not, it is
    a violation, or, where it is younger than any way of coming may take, `behind`.

    The verdict counts operations of the ledger, and accounts of the history.

    Args:
        copies: what is proved: all that is stored.
        ledger: what it is held against.
        wait_seconds: before what is missing is looked at again.
        on_its_way_seconds: how old an operation may be that has not come yet, by the bank's clock and this one.
    """
    walk = _Walk(Comparison(copies, ledger), ledger, wait_seconds, timedelta(seconds=on_its_way_seconds))
    return IntegrityCheck(walk.found, (_OPERATIONS, _ACCOUNTS), metrics.INTEGRITY)


@dataclass(frozen=True, slots=True)
class _Walk:
    """A proof's way through both sides."""

    comparison: Comparison
    ledger: Ledger
    wait_seconds: float
    on_its_way: timedelta

    async def found(self) -> AsyncGenerator[Finding, None]:
        async for each in self._operations():
            yield each
        async for each in self._strangers():
            yield each

    async def _operations(self) -> AsyncGenerator[Finding, None]:
        rows, missing = 0, list[Window]()
        async for versions in self.ledger.all_versions():
            for pack in packs(Window(account_id, 0, version) for account_id, version in versions.items()):
                differences = await self.comparison.differences(pack)
                for violation in _wrong(differences):
                    yield violation
                _add(missing, differences)
                rows += _size(pack)
                yield Progress(_OPERATIONS, str(pack[-1].account_id), rows)
                if len(missing) >= _MOST_MISSING:
                    async for each in self._again(missing):
                        yield each
                    missing.clear()
        async for each in self._again(missing):
            yield each

    async def _again(self, missing: list[Window]) -> AsyncGenerator[Finding, None]:
        """What was missing, after the wait."""
        if not missing:
            return
        await asyncio.sleep(self.wait_seconds)
        rows = 0
        for pack in packs(missing):
            differences = await self.comparison.differences(pack)
            recent = datetime.now(UTC) - self.on_its_way
            for violation in _wrong(differences):
                yield violation
            for each in differences:
                if each.wrong:
                    continue
                is_recent = each.expected and each.expected.occurred_at > recent
                yield Pending(_OPERATIONS) if is_recent else _missing(each)
            rows += _size(pack)
            yield Progress(f"{_OPERATIONS} that were missing", str(pack[-1].account_id), rows)

    async def _strangers(self) -> AsyncGenerator[Finding, None]:
        accounts = 0
        async for page in self.comparison.strangers():
            match page:
                case Strange():
                    for violation in _strange(page):
                        yield violation
                case Checked():
                    accounts += page.accounts
                    yield Progress(_ACCOUNTS, str(page.up_to), accounts)


def _size(pack: Iterable[Window]) -> int:
    return sum(window.up_to - window.after for window in pack)


def _add(missing: list[Window], differences: Iterable[Difference]) -> None:
    """Adds the operations of which nothing is stored; neighbours are one window."""
    for each in differences:
        if each.wrong:
            continue
        last = missing[-1] if missing else None
        if last and (last.account_id, last.up_to) == (each.account_id, each.version - 1):
            missing[-1] = Window(each.account_id, last.after, each.version)
        else:
            missing.append(Window(each.account_id, each.version - 1, each.version))


def _wrong(differences: Iterable[Difference]) -> Iterator[Violation]:
    for each in differences:
        for copy in each.wrong:
            found, expected = _told(copy.row, each.expected)
            yield Violation(Law.COPY_IS_LEDGERS, _place(copy.row), found, expected)


def _missing(difference: Difference) -> Violation:
    row: dict[str, str | int] = {"account_id": str(difference.account_id), "version": difference.version}
    expected = difference.expected
    told = _text(expected) if expected else "an operation that the ledger counts, and does not have either"
    return Violation(Law.OPERATION_IS_STORED, row, "nothing", told)


def _strange(page: Strange) -> Iterator[Violation]:
    if page.version is None:
        law, expected = Law.ACCOUNT_IS_LEDGERS, "nothing: the ledger has no such account"
    else:
        law, expected = Law.VERSION_IS_LEDGERS, f"nothing: in the ledger the account is at version {page.version}"
    for copy in page.copies:
        yield Violation(law, _place(copy.row), _text(copy.row), expected)


def _place(row: Row) -> dict[str, str | int]:
    return {"account_id": str(row.account_id), "version": row.account_version}


def _told(found: Row, expected: Row | None) -> tuple[str, str]:
    """What the two do not agree on."""
    if expected is None:
        return _text(found), "an operation that the ledger counts, and does not have"
    mine, theirs = _values(found), _values(expected)
    names = [name for name in mine if mine[name] != theirs[name]]
    return _listed({name: mine[name] for name in names}), _listed({name: theirs[name] for name in names})


def _text(row: Row) -> str:
    return _listed(_values(row))


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _values(row: Row) -> dict[str, str]:
    return {
        "operation_id": str(row.operation_id),
        "type": row.type.value,
        "direction": row.direction.value,
        "amount": _plain(row.amount),
        "currency": row.currency,
        "balance_after": _plain(row.balance_after),
        "counterparty_id": str(row.counterparty_id),
        "occurred_at": row.occurred_at.isoformat(),
    }


def _plain(amount: Decimal) -> str:
    """The same text for the same number, however many zeros it came with."""
    return f"{amount.normalize():f}"
