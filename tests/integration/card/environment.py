"""A card service's parts over a real database and a real bank, with an acquirer that tests can trouble."""

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from kit.auth.principal import Role
from subgraphs.card.service.adapters.bank_ledger import Ledger
from subgraphs.card.service.adapters.repository import Repository, open_database
from subgraphs.card.service.application.saga import Saga, Timing
from subgraphs.card.service.domain import rules
from subgraphs.card.service.domain.cards import CardDetails
from subgraphs.card.service.domain.rules import Limit
from subgraphs.card.service.domain.top_up import Key, PaymentStatus, Status, Token, TopUp, Wish
from tests.integration.bank.harness import RunningBank
from tests.integration.card.fake_acquirer import FakeAcquirer
from wallet.money import EXPONENTS, Money

VISA = "4242424242424242"
LIMITS = {currency: Limit(Decimal(10_000), Decimal(20_000)) for currency in EXPONENTS}
AT_ONCE = Timing(
    interval_seconds=0.02, lease_seconds=0.0, first_pause_seconds=0.0, longest_pause_seconds=0.0, captures=3
)
"""Every row is due at once: whoever looks, takes it."""


def card(number: str = VISA, cvv: str = "123") -> CardDetails:
    return CardDetails(number, 12, datetime.now(UTC).year + 2, cvv)


class Died(BaseException):
    """The process is no more."""


class Mortal:
    """What a process does outside itself passes here. The n-th thing it does not live to do: the ones before have taken
    effect, whether or not it has heard so.
    """

    def __init__(self, dies_at: int | None = None) -> None:
        self.passed = 0
        self._dies_at = dies_at

    def around(self, part: Any) -> Any:
        """The part, with each of its calls counted."""
        return _Counted(part, self)

    async def pass_through(self, call: Callable[[], Any]) -> Any:
        if self.passed == self._dies_at:
            raise Died
        self.passed += 1
        return await call()


class _Counted:
    def __init__(self, part: Any, mortal: Mortal) -> None:
        self._part = part
        self._mortal = mortal

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)

        async def counted(*args: Any, **kwargs: Any) -> Any:
            return await self._mortal.pass_through(lambda: method(*args, **kwargs))

        return counted


@dataclass
class World:
    """Everything around the card service's process, which may die and come back in it."""

    repository: Repository
    acquirer: FakeAcquirer
    ledger: Ledger
    bank: RunningBank
    currency: str = "RUB"
    principal: str = field(default_factory=lambda: f"test|{uuid.uuid4().hex}")

    def saga(self, mortal: Mortal | None = None, timing: Timing = AT_ONCE) -> Saga:
        """A process's saga; a mortal one's every step outside is counted."""
        around = mortal.around if mortal else lambda part: part
        return Saga(around(self.repository), around(self.acquirer), around(self.ledger), timing)

    async def wish(self, account_id: UUID, amount: Money, number: str = VISA, key: str | None = None) -> Wish:
        token = await self.acquirer.tokenize(card(number))
        assert isinstance(token, Token)
        print_ = rules.fingerprint(b"secret", token.token, account_id, amount)
        return Wish(uuid7(), Key(self.principal, key or uuid.uuid4().hex), print_, "alice", account_id, amount, token)

    async def admitted(self, account_id: UUID, amount: str = "10.00", number: str = VISA) -> TopUp:
        """A new top-up that nobody drives yet."""
        wish = await self.wish(account_id, self.money(amount), number)
        return await self.repository.admit(wish, LIMITS, lease_seconds=0)

    def money(self, amount: str) -> Money:
        return Money.parse(amount, self.currency)

    async def open(self) -> UUID:
        """A new and empty account of Alice's."""
        return await self.bank.open("alice", "0", self.currency)

    async def close(self, account_id: UUID) -> None:
        """For good, while something is on its way to it."""
        await self.bank.user("admin", Role.ADMIN)(self.bank.client.close_account(account_id))

    def anew(self) -> "World":
        """The same world with another acquirer and another caller."""
        return World(self.repository, FakeAcquirer(), self.ledger, self.bank)

    async def finish(self, top_up: TopUp, timing: Timing = AT_ONCE) -> TopUp:
        """Drives a top-up for as long as it is due, as a fresh process's completer does."""
        saga = self.saga(timing=timing)
        while claimed := await self.repository.claim(1, lease_seconds=timing.lease_seconds, id_=top_up.id):
            for due in claimed:
                await saga.drive(due)
        return await self.now(top_up)

    async def now(self, top_up: TopUp) -> TopUp:
        return (await self.repository.get([top_up.id]))[top_up.id]

    async def credited(self, id_: UUID) -> Decimal:
        """What the ledger has of a top-up."""
        query = "SELECT coalesce(sum(amount), 0) FROM transfers WHERE kind = 'DEPOSIT' AND descriptor->>'topUpId' = $1"
        credited: Decimal = await self.bank.sql.fetchval(query, str(id_))
        return credited

    async def agree(self, top_up: TopUp) -> TopUp:
        """The top-up, which has come to its end; row, acquirer and ledger say the same of the money."""
        now = await self.now(top_up)
        assert now.is_final, now
        payment = self.acquirer.payment(now.authorization_key)
        kept = Decimal(0) if payment is None else payment.captured.amount - payment.refunded.amount
        credited = await self.credited(now.id)
        assert kept == credited, now
        assert credited == (now.amount.amount if now.status is Status.COMPLETED else 0), now
        expected: dict[Status, set[PaymentStatus | None]] = {
            Status.COMPLETED: {PaymentStatus.CAPTURED},
            Status.DECLINED: {PaymentStatus.DECLINED},
            Status.VOIDED: {PaymentStatus.VOIDED, None},
            Status.REFUNDED: {PaymentStatus.REFUNDED},
        }
        assert (payment and payment.status) in expected[now.status], now
        assert now.review is None
        return now


@asynccontextmanager
async def world(bank: RunningBank, card_url: str) -> AsyncIterator[World]:
    async with open_database(card_url, max_connections=8) as database:
        ledger = Ledger(bank.client, lambda: bank.keys.service("card"))
        yield World(Repository(database), FakeAcquirer(), ledger, bank)
