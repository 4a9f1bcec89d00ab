"""The money of all top-ups proved: own rows against the acquirer's books and the ledger, while all three are in use."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from kit.integrity.check import Finding, IntegrityCheck, Pending, Progress, Violation
from subgraphs.card.service import metrics
from subgraphs.card.service.adapters.acquirer import Acquirer
from subgraphs.card.service.adapters.bank_ledger import Ledger
from subgraphs.card.service.adapters.repository import Repository
from subgraphs.card.service.domain import transitions
from subgraphs.card.service.domain.top_up import Deposit, TopUp, top_up_of

_PAGE: Final = 500
_CALLS: Final = 8
"""How many top-ups are asked for at the acquirer and the bank at once."""
_TOP_UPS: Final = "top-ups"
_PAYMENTS: Final = "payments"
_DEPOSITS: Final = "deposits"


class Law(StrEnum):
    """What holds of the top-ups at every moment. Together they say of each, and so of each currency, that what was
    captured and not refunded is credited or in progress.
    """

    PAYMENT_IS_TOP_UPS = "PAYMENT_IS_TOP_UPS"
    """The acquirer has taken and given back of each top-up what its status says; of one in progress, what its step may
    have left."""
    DEPOSIT_IS_TOP_UPS = "DEPOSIT_IS_TOP_UPS"
    """A completed top-up has its deposit in the ledger, of its account and its sum."""
    PAYMENT_HAS_TOP_UP = "PAYMENT_HAS_TOP_UP"
    """The acquirer has no payment but the top-ups'."""
    DEPOSIT_HAS_TOP_UP = "DEPOSIT_HAS_TOP_UP"
    """The ledger has no deposit that says it is of a top-up, but the one that completed it."""


def top_up_integrity(
    repository: Repository, acquirer: Acquirer, ledger: Ledger, currencies: Iterable[str], page: int = _PAGE
) -> IntegrityCheck:
    """Proves the laws of the top-ups (`Law`). A top-up in progress is `behind`: no violation, but on its way.

    Args:
        repository: the top-ups.
        acquirer: asked for each of them, and for all that it has.
        ledger: asked for the deposit of each that is completed, and for all that it has.
        currencies: whose deposits are looked at, beside those of the top-ups.
        page: rows at once.
    """
    walk = _Walk(repository, acquirer, ledger, set(currencies), page, asyncio.Semaphore(_CALLS))
    return IntegrityCheck(walk.found, (_TOP_UPS, _PAYMENTS, _DEPOSITS), metrics.INTEGRITY)


@dataclass(frozen=True, slots=True)
class _Walk:
    """A proof's way: over the own rows, then over what the other two have."""

    repository: Repository
    acquirer: Acquirer
    ledger: Ledger
    currencies: set[str]
    page: int
    calls: asyncio.Semaphore

    async def found(self) -> AsyncGenerator[Finding, None]:
        async for each in self._top_ups():
            yield each
        async for each in self._payments():
            yield each
        async for each in self._deposits():
            yield each

    async def _top_ups(self) -> AsyncGenerator[Finding, None]:
        rows, last = 0, None
        while page := await self.repository.after(last, self.page):
            for found in await self._compared(page):
                yield found
            rows, last = rows + len(page), page[-1].id
            self.currencies.update(top_up.amount.currency for top_up in page)
            yield Progress(_TOP_UPS, str(last), rows)
            if len(page) < self.page:
                return

    async def _compared(self, page: Sequence[TopUp]) -> list[Violation | Pending]:
        """What is found of these top-ups. One that has moved on while the others were asked is asked for again."""
        found: list[Violation | Pending] = []
        while page:
            asked = await asyncio.gather(*map(self._ask, page))
            now = await self.repository.get([top_up.id for top_up in page])
            for top_up, violations in zip(page, asked, strict=True):
                if now[top_up.id].version == top_up.version:
                    found += violations
                    found += [] if top_up.is_final else [Pending(_TOP_UPS)]
            page = [now[top_up.id] for top_up in page if now[top_up.id].version != top_up.version]
        return found

    async def _ask(self, top_up: TopUp) -> list[Violation]:
        """What the other two say against a top-up."""
        violations = []
        async with self.calls:
            mismatch = transitions.mismatch(top_up, await self.acquirer.find(top_up.authorization_key))
            if mismatch:
                violations.append(_violation(Law.PAYMENT_IS_TOP_UPS, top_up.id, mismatch, _said(top_up)))
            if top_up.transfer_id is not None:
                deposit = await self.ledger.deposit_of(top_up.transfer_id)
                if deposit is None or (deposit.recipient_id, deposit.amount) != (top_up.account_id, top_up.amount):
                    what = "no deposit" if deposit is None else f"{deposit.amount} to {deposit.recipient_id}"
                    expected = f"{top_up.amount} to {top_up.account_id}"
                    violations.append(_violation(Law.DEPOSIT_IS_TOP_UPS, top_up.id, what, expected))
        return violations

    async def _payments(self) -> AsyncGenerator[Finding, None]:
        rows, last = 0, None
        while page := await self.acquirer.payments(last, self.page):
            ids = [id_ for payment in page if (id_ := top_up_of(payment.key))]
            known = await self.repository.get(ids)
            for payment in page:
                if top_up_of(payment.key) not in known:
                    what = f"{payment.status}, captured {payment.captured}, refunded {payment.refunded}"
                    row = {"payment_id": payment.id, "key": payment.key}
                    yield Violation(Law.PAYMENT_HAS_TOP_UP, row, what, "a top-up")
            rows, last = rows + len(page), page[-1].id
            yield Progress(_PAYMENTS, last, rows)
            if len(page) < self.page:
                return

    async def _deposits(self) -> AsyncGenerator[Finding, None]:
        rows = 0
        for currency in sorted(self.currencies):
            async for page in self.ledger.deposits(currency):
                known = await self.repository.get([id_ for deposit in page if (id_ := _top_up_id(deposit))])
                for deposit in page:
                    top_up = known.get(id_) if (id_ := _top_up_id(deposit)) else None
                    if top_up is None or not transitions.is_credited_by(top_up, deposit):
                        row = {"transfer_id": str(deposit.transfer_id), "top_up_id": deposit.top_up_id}
                        expected = "a top-up" if top_up is None else _said(top_up)
                        what = f"{deposit.amount} {currency} to {deposit.account_id}"
                        yield Violation(Law.DEPOSIT_HAS_TOP_UP, row, what, expected)
                rows += len(page)
                if page:
                    yield Progress(_DEPOSITS, str(page[-1].transfer_id), rows)


def _top_up_id(deposit: Deposit) -> UUID | None:
    try:
        return UUID(deposit.top_up_id)
    except ValueError:
        return None


def _said(top_up: TopUp) -> str:
    """A top-up in the words of a violation."""
    step = f" at {top_up.step}" if top_up.step else ""
    return f"{top_up.status}{step}, {top_up.amount} {top_up.amount.currency} to {top_up.account_id}"


def _violation(law: Law, top_up_id: UUID, found: str, expected: str) -> Violation:
    return Violation(law, {"top_up_id": str(top_up_id)}, found, expected)
