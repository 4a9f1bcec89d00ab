"""Parts of the card service with a real database, a real bank and a fake acquirer whose failures the tests choose."""

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
from pydantic import SecretStr
from uuid_utils.compat import uuid7

from kit.auth.principal import Role
from subgraphs.card.service.adapters.attempts import AttemptRepository
from subgraphs.card.service.adapters.bank_ledger import BankLedger
from subgraphs.card.service.adapters.database import open_pool
from subgraphs.card.service.adapters.repository import Repository
from subgraphs.card.service.application.saga import Saga, SagaLimits
from subgraphs.card.service.application.service import TopUpOptions, TopUps
from subgraphs.card.service.application.subscription_hub import SubscriptionHub
from subgraphs.card.service.domain import declines, rules
from subgraphs.card.service.domain.cards import CardDetails, CardToken
from subgraphs.card.service.domain.declines import DeclineLimits
from subgraphs.card.service.domain.payment import PaymentStatus
from subgraphs.card.service.domain.rules import Limit
from subgraphs.card.service.domain.top_up import IdempotencyKey, NewTopUp, Status, TopUp
from tests.integration.bank.harness import RunningBank
from tests.integration.card.fake_acquirer import FakeAcquirer
from wallet.money import EXPONENTS, Money

VISA = "4242424242424242"
LIMITS = {currency: Limit(Decimal(10_000), Decimal(20_000)) for currency in EXPONENTS}
NO_DELAYS = SagaLimits(
    interval_seconds=0.02, lease_seconds=0.0, first_pause_seconds=0.0, longest_pause_seconds=0.0, max_captures=3
)
"""Every top-up is due at once, so that any driver (a task that makes a top-up's calls) can take it."""


def card(number: str = VISA, cvv: str = "123", month: int = 12) -> CardDetails:
    return CardDetails(number, month, datetime.now(UTC).year + 2, cvv)


class ProcessDied(BaseException):
    """Simulates the death of the process."""


class CrashPoint:
    """Counts the calls to the database, the acquirer and the bank, and raises ProcessDied at one of them.

    The earlier calls have taken effect.
    """

    def __init__(self, dies_at: int | None = None) -> None:
        """Args:
        dies_at: number of calls that succeed before ProcessDied is raised; None: it is never raised.
        """
        self.calls = 0
        self._dies_at = dies_at

    def wrap(self, part: Any) -> Any:
        """Return the part with its method calls counted."""
        return _Counted(part, self)

    async def call(self, method: Callable[[], Any]) -> Any:
        if self.calls == self._dies_at:
            raise ProcessDied
        self.calls += 1
        return await method()


class _Counted:
    def __init__(self, part: Any, crash_point: CrashPoint) -> None:
        self._part = part
        self._crash_point = crash_point

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)

        async def counted(*args: Any, **kwargs: Any) -> Any:
            return await self._crash_point.call(lambda: method(*args, **kwargs))

        return counted


@dataclass
class CardEnvironment:
    """Dependencies of the card service's process. They outlive the process, which may die and restart."""

    pool: asyncpg.Pool
    repository: Repository
    acquirer: FakeAcquirer
    ledger: BankLedger
    bank: RunningBank
    currency: str = "RUB"
    principal: str = field(default_factory=lambda: f"test|{uuid.uuid4().hex}")

    @property
    def attempts(self) -> AttemptRepository:
        return AttemptRepository(self.pool)

    def saga(self, crash_point: CrashPoint | None = None, limits: SagaLimits = NO_DELAYS) -> Saga:
        """Create the saga of a new process. The process dies at the crash point."""
        wrap = crash_point.wrap if crash_point else lambda part: part
        return Saga(wrap(self.repository), wrap(self.acquirer), wrap(self.ledger), limits)

    def top_ups(
        self,
        limits: DeclineLimits,
        crash_point: CrashPoint | None = None,
        *,
        saga: Saga | None = None,
    ) -> TopUps:
        """Create the use cases of a new process. Call them inside `Caller.calling()`."""
        wrap = crash_point.wrap if crash_point else lambda part: part
        repository, options = wrap(self.repository), TopUpOptions(LIMITS, SecretStr("secret"), decline_limits=limits)
        hub = SubscriptionHub(self.repository, poll_seconds=60)
        saga = saga or self.saga(crash_point, SagaLimits())
        return TopUps(repository, wrap(self.attempts), wrap(self.acquirer), self.bank.client, saga, hub, options)

    async def new_top_up(self, account_id: UUID, amount: Money, number: str = VISA, key: str | None = None) -> NewTopUp:
        details = card(number)
        token = await self.acquirer.tokenize(details)
        assert isinstance(token, CardToken)
        fingerprint = rules.request_fingerprint(b"secret", token.token, account_id, amount)
        idempotency_key = IdempotencyKey(self.principal, key or uuid.uuid4().hex)
        digest = declines.card_digest(b"secret", details)
        return NewTopUp(uuid7(), idempotency_key, fingerprint, "alice", account_id, amount, token, digest)

    async def admit(self, account_id: UUID, amount: str = "10.00", number: str = VISA) -> TopUp:
        """Store a new top-up that no driver works on."""
        new = await self.new_top_up(account_id, self.money(amount), number)
        return await self.repository.admit(new, LIMITS, lease_seconds=0)

    def money(self, amount: str) -> Money:
        return Money.parse(amount, self.currency)

    async def open_account(self) -> UUID:
        """Open an empty account of Alice's."""
        return await self.bank.open("alice", "0", self.currency)

    async def close_account(self, account_id: UUID) -> None:
        await self.bank.user("admin", Role.ADMIN)(self.bank.client.close_account(account_id))

    async def freeze_account(self, account_id: UUID) -> None:
        await self.bank.user("operator", Role.OPERATOR)(self.bank.client.freeze_account(account_id, "ALL", "test"))

    def with_new_acquirer(self) -> "CardEnvironment":
        """Return this environment with a new acquirer and a new caller."""
        return CardEnvironment(self.pool, self.repository, FakeAcquirer(), self.ledger, self.bank)

    async def finish(self, top_up: TopUp, limits: SagaLimits = NO_DELAYS) -> TopUp:
        """Drive a top-up while it is due, as the background task of a new process does."""
        saga = self.saga(limits=limits)
        while claimed := await self.repository.claim(1, lease_seconds=limits.lease_seconds, id_=top_up.id):
            for due in claimed:
                await saga.drive(due)
        return await self.reload(top_up)

    def refund(self, top_up: TopUp) -> None:
        """Refund the payment of a top-up at the acquirer, as an operator does."""
        payment = self.acquirer.payments[top_up.authorization_key]
        refunded = replace(payment, status=PaymentStatus.REFUNDED, refunded=payment.captured)
        self.acquirer.payments[top_up.authorization_key] = refunded

    async def reload(self, top_up: TopUp) -> TopUp:
        return (await self.repository.get([top_up.id]))[top_up.id]

    async def credited_amount(self, id_: UUID) -> Decimal:
        """Return the sum of a top-up's deposits in the ledger."""
        query = "SELECT coalesce(sum(amount), 0) FROM transfers WHERE kind = 'DEPOSIT' AND descriptor->>'topUpId' = $1"
        credited: Decimal = await self.bank.sql.fetchval(query, str(id_))
        return credited

    async def assert_books_agree(self, top_up: TopUp) -> TopUp:
        """Assert that the row of a final top-up, the acquirer and the ledger agree on the money; return the row."""
        current = await self.reload(top_up)
        assert current.is_final, current
        payment = self.acquirer.payment(current.authorization_key)
        kept = Decimal(0) if payment is None else payment.captured.amount - payment.refunded.amount
        credited = await self.credited_amount(current.id)
        assert kept == credited, current
        assert credited == (current.amount.amount if current.status is Status.COMPLETED else 0), current
        expected: dict[Status, set[PaymentStatus | None]] = {
            Status.COMPLETED: {PaymentStatus.CAPTURED},
            Status.DECLINED: {PaymentStatus.DECLINED},
            Status.VOIDED: {PaymentStatus.VOIDED, None},
            Status.REFUNDED: {PaymentStatus.REFUNDED},
        }
        assert (payment and payment.status) in expected[current.status], current
        assert current.review is None
        return current


@asynccontextmanager
async def card_environment(bank: RunningBank, card_url: str) -> AsyncIterator[CardEnvironment]:
    async with open_pool(card_url, max_size=8) as pool:
        ledger = BankLedger(bank.client, lambda: bank.keys.service("card"))
        yield CardEnvironment(pool, Repository(pool), FakeAcquirer(), ledger, bank)
