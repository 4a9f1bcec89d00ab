"""Integrity check of top-ups: compares them with the acquirer's payments and the ledger while all three are in use."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from kit.integrity.check import Finding, IntegrityCheck, Pending, Progress, Violation
from subgraphs.card.service import metrics
from subgraphs.card.service.adapters.acquirer import Acquirer
from subgraphs.card.service.adapters.bank_ledger import BankLedger
from subgraphs.card.service.adapters.repository import Repository
from subgraphs.card.service.domain import transitions
from subgraphs.card.service.domain.deposit import Deposit
from subgraphs.card.service.domain.top_up import TopUp, top_up_id_from_key
from subgraphs.card.service.domain.transitions import MAX_DELAY_SECONDS

_PAGE_SIZE: Final = 500
_MAX_CONCURRENT_CALLS: Final = 8
"""Maximum number of top-ups that are compared concurrently with the acquirer and the bank."""
_TOP_UPS: Final = "top-ups"
_PAYMENTS: Final = "payments"
_DEPOSITS: Final = "deposits"


class Invariant(StrEnum):
    """Invariants of the top-ups.

    Together they guarantee for each top-up, and so for each currency: an amount that was captured and not refunded is
    credited, or its top-up is in progress.
    """

    PAYMENT_MATCHES_TOP_UP = "PAYMENT_IS_TOP_UPS"  # reports keep this earlier name
    """The acquirer's payment agrees with the status of its top-up, or with the step of a top-up in progress."""
    DEPOSIT_MATCHES_TOP_UP = "DEPOSIT_IS_TOP_UPS"  # reports keep this earlier name
    """A completed top-up has its deposit in the ledger, with the same account and amount."""
    PAYMENT_HAS_TOP_UP = "PAYMENT_HAS_TOP_UP"
    """Every payment at the acquirer belongs to a top-up, or is declined, voided, or refunded in full."""
    DEPOSIT_HAS_TOP_UP = "DEPOSIT_HAS_TOP_UP"
    """Every deposit that names a top-up is that top-up's own deposit."""
    NEXT_ATTEMPT_WITHIN_DELAY = "NEXT_ATTEMPT_WITHIN_DELAY"
    """The next attempt at a top-up is not further ahead than any lease or retry delay."""


def top_up_integrity(
    repository: Repository,
    acquirer: Acquirer,
    ledger: BankLedger,
    currencies: Iterable[str],
    page_size: int = _PAGE_SIZE,
) -> IntegrityCheck:
    """Create the integrity check of the top-ups (`Invariant`). Top-ups that are not final are counted as pending.

    Args:
        repository: stored top-ups.
        acquirer: source of the payment of each top-up and of the list of all payments.
        ledger: source of the deposit of each completed top-up and of the list of all deposits.
        currencies: currencies of the deposits to check, in addition to those of the top-ups.
        page_size: rows per query.
    """
    scan = _Scan(repository, acquirer, ledger, set(currencies), page_size, asyncio.Semaphore(_MAX_CONCURRENT_CALLS))
    return IntegrityCheck(scan.find, (_TOP_UPS, _PAYMENTS, _DEPOSITS), metrics.INTEGRITY)


@dataclass(frozen=True, slots=True)
class _Scan:
    """Scan of the stored top-ups, then of the acquirer's payments and of the ledger's deposits."""

    repository: Repository
    acquirer: Acquirer
    ledger: BankLedger
    currencies: set[str]
    page_size: int
    calls: asyncio.Semaphore

    async def find(self) -> AsyncGenerator[Finding, None]:
        for top_up_id, next_attempt_at in (await self.repository.list_too_far_ahead()).items():
            expected = f"at most {MAX_DELAY_SECONDS:.0f} seconds ahead"
            yield _violation(
                Invariant.NEXT_ATTEMPT_WITHIN_DELAY,
                top_up_id,
                f"next attempt at {next_attempt_at.isoformat()}",
                expected,
            )
        async for finding in self._scan_top_ups():
            yield finding
        async for finding in self._scan_payments():
            yield finding
        async for finding in self._scan_deposits():
            yield finding

    async def _scan_top_ups(self) -> AsyncGenerator[Finding, None]:
        rows, last_id = 0, None
        while page := await self.repository.list_after(last_id, self.page_size):
            for finding in await self._compare_page(page):
                yield finding
            rows, last_id = rows + len(page), page[-1].id
            self.currencies.update(top_up.amount.currency for top_up in page)
            yield Progress(_TOP_UPS, str(last_id), rows)
            if len(page) < self.page_size:
                return

    async def _compare_page(self, page: Sequence[TopUp]) -> list[Violation | Pending]:
        """Compare top-ups with the acquirer and the ledger. Repeat this for top-ups that change meanwhile."""
        findings: list[Violation | Pending] = []
        while page:
            results = await asyncio.gather(*map(self._compare, page))
            current = await self.repository.get([top_up.id for top_up in page])
            for top_up, violations in zip(page, results, strict=True):
                if current[top_up.id].version == top_up.version:
                    findings += violations
                    findings += [] if top_up.is_final else [Pending(_TOP_UPS)]
            page = [current[top_up.id] for top_up in page if current[top_up.id].version != top_up.version]
        return findings

    async def _compare(self, top_up: TopUp) -> list[Violation]:
        violations = []
        async with self.calls:
            mismatch = transitions.find_mismatch(top_up, await self.acquirer.find_payment(top_up.authorization_key))
            if mismatch:
                violations.append(_violation(Invariant.PAYMENT_MATCHES_TOP_UP, top_up.id, mismatch, _describe(top_up)))
            if top_up.transfer_id is not None:
                deposit = await self.ledger.get_transfer(top_up.transfer_id)
                if deposit is None or (deposit.recipient_id, deposit.amount) != (top_up.account_id, top_up.amount):
                    actual = "no deposit" if deposit is None else f"{deposit.amount} to {deposit.recipient_id}"
                    expected = f"{top_up.amount} to {top_up.account_id}"
                    violations.append(_violation(Invariant.DEPOSIT_MATCHES_TOP_UP, top_up.id, actual, expected))
        return violations

    async def _scan_payments(self) -> AsyncGenerator[Finding, None]:
        rows, last_id = 0, None
        while page := await self.acquirer.list_payments(last_id, self.page_size):
            ids = [id_ for payment in page if (id_ := top_up_id_from_key(payment.key))]
            top_ups = await self.repository.get(ids)
            for payment in page:
                if top_up_id_from_key(payment.key) not in top_ups and not payment.holds_nothing:
                    actual = f"{payment.status}, captured {payment.captured}, refunded {payment.refunded}"
                    row = {"payment_id": payment.id, "key": payment.key}
                    yield Violation(Invariant.PAYMENT_HAS_TOP_UP, row, actual, "a top-up")
            rows, last_id = rows + len(page), page[-1].id
            yield Progress(_PAYMENTS, last_id, rows)
            if len(page) < self.page_size:
                return

    async def _scan_deposits(self) -> AsyncGenerator[Finding, None]:
        rows = 0
        for currency in sorted(self.currencies):
            async for page in self.ledger.list_deposits(currency):
                top_ups = await self.repository.get([id_ for deposit in page if (id_ := _top_up_id(deposit))])
                for deposit in page:
                    top_up = top_ups.get(id_) if (id_ := _top_up_id(deposit)) else None
                    if top_up is None or not transitions.matches_deposit(top_up, deposit):
                        row = {"transfer_id": str(deposit.transfer_id), "top_up_id": deposit.top_up_id}
                        expected = "a top-up" if top_up is None else _describe(top_up)
                        actual = f"{deposit.amount} {currency} to {deposit.account_id}"
                        yield Violation(Invariant.DEPOSIT_HAS_TOP_UP, row, actual, expected)
                rows += len(page)
                if page:
                    yield Progress(_DEPOSITS, str(page[-1].transfer_id), rows)


def _top_up_id(deposit: Deposit) -> UUID | None:
    try:
        return UUID(deposit.top_up_id)
    except ValueError:
        return None


def _describe(top_up: TopUp) -> str:
    step = f" at {top_up.step}" if top_up.step else ""
    return f"{top_up.status}{step}, {top_up.amount} {top_up.amount.currency} to {top_up.account_id}"


def _violation(invariant: Invariant, top_up_id: UUID, actual: str, expected: str) -> Violation:
    return Violation(invariant, {"top_up_id": str(top_up_id)}, actual, expected)
