"""Acquirer in memory that follows the contract: idempotent by key, with its own payments. Tests choose its failures."""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import Enum, auto
from itertools import count
from typing import TypeVar

from subgraphs.card.service.domain import cards
from subgraphs.card.service.domain.cards import CardDetails, CardToken
from subgraphs.card.service.domain.payment import NoPayment, Payment, PaymentStatus, Refusal
from wallet.errors import Unavailable
from wallet.luhn import has_valid_check_digit
from wallet.money import Money

Value = TypeVar("Value")

DECLINES = {"4000000000000002": "DO_NOT_HONOR", "4000000000009995": "INSUFFICIENT_FUNDS"}
"""Card numbers of the sandbox, and the decline code of each. The contract tests use them with the fake acquirer and
the sandbox."""
REFUSED_CHANGES = {"4000000000020042": "capture", "4000000000040024": "refund"}
"""Card numbers of the sandbox, and the change that the acquirer refuses for each."""

_FROM = {"capture": PaymentStatus.AUTHORIZED, "void": PaymentStatus.AUTHORIZED, "refund": PaymentStatus.CAPTURED}
_TO = {"capture": PaymentStatus.CAPTURED, "void": PaymentStatus.VOIDED, "refund": PaymentStatus.REFUNDED}


class Failure(Enum):
    """Failure of one call."""

    LOST_REQUEST = auto()
    """The call has no effect and no response."""
    LOST_RESPONSE = auto()
    """The call has its effect, but no response."""
    DELAYED_REQUEST = auto()
    """The call has no response. It has its effect when the test calls `deliver_delayed`."""
    REFUSED = auto()
    """The call is refused permanently."""


class FakeAcquirer:
    """`Acquirer` in memory.

    Attributes:
        payments: payments by authorization key.
        failures: by method, the failures of its next calls, in order; later calls succeed.
        after_call: by method, a function that is called when a call has taken effect, before the response.
        calls: number of calls by method.
        declines_all: whether every card is declined.
    """

    def __init__(self) -> None:
        self.payments: dict[str, Payment] = {}
        self.failures: defaultdict[str, list[Failure]] = defaultdict(list)
        self.after_call: dict[str, Callable[[], Awaitable[object]]] = {}
        self.calls: defaultdict[str, int] = defaultdict(int)
        self.declines_all = False
        self._numbers: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._used_keys: dict[str, tuple[object, ...]] = {}
        self._refusals: dict[str, Refusal] = {}
        self._cancelled_keys: set[str] = set()
        self._delayed: list[Callable[[], object]] = []
        self._refused_changes = REFUSED_CHANGES
        self._ids = count(1)

    def payment(self, key: str) -> Payment | None:
        return self.payments.get(key)

    def deliver_delayed(self) -> None:
        """Let the delayed requests take effect."""
        while self._delayed:
            self._delayed.pop()()

    def accept_all(self) -> None:
        """Stop refusing changes. Earlier refusals are still repeated for their keys."""
        self._refused_changes = {}

    async def tokenize(self, card: CardDetails) -> CardToken | Refusal:
        def do() -> CardToken | Refusal:
            if not has_valid_check_digit(card.number):
                return Refusal("INVALID_CARD")
            identity = f"{card.number} {card.expiry_month} {card.expiry_year}"
            token = self._tokens.setdefault(identity, f"tok_{len(self._tokens)}")
            self._numbers[token] = card.number
            return CardToken(token, cards.card_brand(card.number), card.number[-4:])

        return await self._respond("tokenize", do)

    async def authorize(self, key: str, card: CardToken, amount: Money, reference: str) -> Payment | Refusal:
        def do() -> Payment | Refusal:
            if key in self._cancelled_keys:
                return Refusal("KEY_CANCELLED")
            if self._used_keys.setdefault(key, ("authorize", card.token, amount)) != ("authorize", card.token, amount):
                return Refusal("KEY_REUSED")
            if card.token not in self._numbers:
                return Refusal("UNKNOWN_TOKEN")
            if key not in self.payments:
                default = "DO_NOT_HONOR" if self.declines_all else None
                decline = DECLINES.get(self._numbers[card.token], default)
                status = PaymentStatus.DECLINED if decline else PaymentStatus.AUTHORIZED
                zero = amount - amount
                id_ = f"{next(self._ids):08}"
                self.payments[key] = Payment(id_, key, status, amount, zero, zero, decline)
                self._numbers[id_] = self._numbers[card.token]
            return self.payments[key]

        return await self._respond("authorize", do)

    async def find_payment(self, key: str) -> Payment | NoPayment:
        return await self._respond("find_payment", lambda: self.payments.get(key) or NoPayment())

    async def cancel(self, key: str) -> Payment | NoPayment | Refusal:
        def do() -> Payment | NoPayment | Refusal:
            payment = self.payments.get(key)
            if payment is None:
                self._cancelled_keys.add(key)
                return NoPayment()
            if payment.status in {PaymentStatus.CAPTURED, PaymentStatus.REFUNDED}:
                return Refusal("WRONG_STATUS", payment)
            self._cancelled_keys.add(key)
            if payment.status is PaymentStatus.AUTHORIZED:
                self.payments[key] = replace(payment, status=PaymentStatus.VOIDED)
            return self.payments[key]

        return await self._respond("cancel", do)

    async def capture(self, payment_id: str, key: str) -> Payment | Refusal:
        return await self._change("capture", payment_id, key)

    async def void(self, payment_id: str, key: str) -> Payment | Refusal:
        return await self._change("void", payment_id, key)

    async def refund(self, payment_id: str, key: str) -> Payment | Refusal:
        return await self._change("refund", payment_id, key)

    async def list_payments(self, after: str | None, limit: int) -> list[Payment]:
        payments = [payment for payment in self.payments.values() if after is None or payment.id > after]
        return await self._respond("list_payments", lambda: sorted(payments, key=lambda payment: payment.id)[:limit])

    async def _change(self, change: str, payment_id: str, key: str) -> Payment | Refusal:
        def do() -> Payment | Refusal:
            payment = next((each for each in self.payments.values() if each.id == payment_id), None)
            if payment is None:
                return Refusal("NOT_FOUND")
            if self._used_keys.get(key, (change, payment_id)) != (change, payment_id):
                return Refusal("KEY_REUSED")
            if key in self._used_keys:
                return self._refusals.get(key, payment)
            if payment.status is not _FROM[change]:
                return Refusal("WRONG_STATUS", payment)
            self._used_keys[key] = (change, payment_id)
            if self._refused_changes.get(self._numbers[payment_id]) == change:
                return self._refusals.setdefault(key, Refusal("REFUSED", payment))
            field = {"capture": "captured", "refund": "refunded"}.get(change)
            sums = {field: payment.amount} if field else {}
            self.payments[payment.key] = replace(payment, status=_TO[change], **sums)  # type: ignore[arg-type]
            return self.payments[payment.key]

        return await self._respond(change, do)

    async def _respond(self, method: str, do: Callable[[], Value]) -> Value:
        self.calls[method] += 1
        failure = self.failures[method].pop(0) if self.failures[method] else None
        match failure:
            case Failure.LOST_REQUEST:
                raise Unavailable("the card acquirer")
            case Failure.DELAYED_REQUEST:
                self._delayed.append(do)
                raise Unavailable("the card acquirer")
            case Failure.REFUSED:
                return Refusal("REFUSED")  # type: ignore[return-value]  # for methods that may be refused
        response = do()
        if method in self.after_call:
            await self.after_call[method]()
        if failure is Failure.LOST_RESPONSE:
            raise Unavailable("the card acquirer")
        return response
