"""An acquirer in memory, as the contract has it: idempotent by key, with its own books. Tests say what goes wrong."""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import Enum, auto
from itertools import count
from typing import TypeVar

from subgraphs.card.service.domain import cards
from subgraphs.card.service.domain.cards import CardDetails
from subgraphs.card.service.domain.top_up import NoPayment, Payment, PaymentStatus, Refusal, Token
from wallet.errors import Unavailable
from wallet.money import Money

Value = TypeVar("Value")

DECLINES = {"4000000000000002": "DO_NOT_HONOR", "4000000000009995": "INSUFFICIENT_FUNDS"}
REFUSES = {"4000000000020042": "capture", "4000000000040024": "refund"}
"""The sandbox's own numbers: one suite holds both to the contract."""

_FROM = {"capture": PaymentStatus.AUTHORIZED, "void": PaymentStatus.AUTHORIZED, "refund": PaymentStatus.CAPTURED}
_TO = {"capture": PaymentStatus.CAPTURED, "void": PaymentStatus.VOIDED, "refund": PaymentStatus.REFUNDED}


class Trouble(Enum):
    """What one call meets."""

    SILENT_BEFORE = auto()
    """No answer, and it is not done."""
    SILENT_AFTER = auto()
    """No answer, but it is done."""
    LATE = auto()
    """No answer; it arrives when the test says so (`arrive`)."""
    REFUSED = auto()
    """Refused for good."""


class FakeAcquirer:
    """`Acquirer`, in memory.

    Attributes:
        books: the payments by their authorization keys.
        troubles: what the next calls of a method meet, in turn; without any, all goes well.
        then: what happens right after a call of a method took effect, before it is answered.
        calls: how often each method was called.
    """

    def __init__(self) -> None:
        self.books: dict[str, Payment] = {}
        self.troubles: defaultdict[str, list[Trouble]] = defaultdict(list)
        self.then: dict[str, Callable[[], Awaitable[object]]] = {}
        self.calls: defaultdict[str, int] = defaultdict(int)
        self._numbers: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._used: dict[str, tuple[object, ...]] = {}
        self._refused: dict[str, Refusal] = {}
        self._barred: set[str] = set()
        self._late: list[Callable[[], object]] = []
        self._refuses = REFUSES
        self._ids = count(1)

    def payment(self, key: str) -> Payment | None:
        return self.books.get(key)

    def arrive(self) -> None:
        """What was late comes now."""
        while self._late:
            self._late.pop()()

    def relent(self) -> None:
        """From now on nothing is refused for good, but what was refused stays so for its key."""
        self._refuses = {}

    async def tokenize(self, card: CardDetails) -> Token | Refusal:
        if not cards.passes_luhn(card.number):
            return Refusal("INVALID_CARD")
        of_card = f"{card.number} {card.expiry_month} {card.expiry_year}"
        token = self._tokens.setdefault(of_card, f"tok_{len(self._tokens)}")
        self._numbers[token] = card.number
        return Token(token, cards.brand(card.number), card.number[-4:])

    async def authorize(self, key: str, card: Token, amount: Money, reference: str) -> Payment | Refusal:
        def do() -> Payment | Refusal:
            if key in self._barred:
                return Refusal("KEY_CANCELLED")
            if self._used.setdefault(key, ("authorize", card.token, amount)) != ("authorize", card.token, amount):
                return Refusal("KEY_REUSED")
            if card.token not in self._numbers:
                return Refusal("UNKNOWN_TOKEN")
            if key not in self.books:
                decline = DECLINES.get(self._numbers[card.token])
                status = PaymentStatus.DECLINED if decline else PaymentStatus.AUTHORIZED
                zero = amount - amount
                id_ = f"{next(self._ids):08}"
                self.books[key] = Payment(id_, key, status, amount, zero, zero, decline)
                self._numbers[id_] = self._numbers[card.token]
            return self.books[key]

        return await self._meet("authorize", do)

    async def find(self, key: str) -> Payment | NoPayment:
        return await self._meet("find", lambda: self.books.get(key) or NoPayment())

    async def cancel(self, key: str) -> Payment | NoPayment | Refusal:
        def do() -> Payment | NoPayment | Refusal:
            payment = self.books.get(key)
            if payment is None:
                self._barred.add(key)
                return NoPayment()
            if payment.status in {PaymentStatus.CAPTURED, PaymentStatus.REFUNDED}:
                return Refusal("WRONG_STATUS", payment)
            self._barred.add(key)
            if payment.status is PaymentStatus.AUTHORIZED:
                self.books[key] = replace(payment, status=PaymentStatus.VOIDED)
            return self.books[key]

        return await self._meet("cancel", do)

    async def capture(self, payment_id: str, key: str) -> Payment | Refusal:
        return await self._change("capture", payment_id, key)

    async def void(self, payment_id: str, key: str) -> Payment | Refusal:
        return await self._change("void", payment_id, key)

    async def refund(self, payment_id: str, key: str) -> Payment | Refusal:
        return await self._change("refund", payment_id, key)

    async def payments(self, after: str | None, limit: int) -> list[Payment]:
        found = [payment for payment in self.books.values() if after is None or payment.id > after]
        return await self._meet("payments", lambda: sorted(found, key=lambda payment: payment.id)[:limit])

    async def _change(self, change: str, payment_id: str, key: str) -> Payment | Refusal:
        def do() -> Payment | Refusal:
            payment = next((each for each in self.books.values() if each.id == payment_id), None)
            if payment is None:
                return Refusal("NOT_FOUND")
            if self._used.get(key, (change, payment_id)) != (change, payment_id):
                return Refusal("KEY_REUSED")
            if key in self._used:
                return self._refused.get(key, payment)
            if payment.status is not _FROM[change]:
                return Refusal("WRONG_STATUS", payment)
            self._used[key] = (change, payment_id)
            if self._refuses.get(self._numbers[payment_id]) == change:
                return self._refused.setdefault(key, Refusal("REFUSED", payment))
            field = {"capture": "captured", "refund": "refunded"}.get(change)
            sums = {field: payment.amount} if field else {}
            self.books[payment.key] = replace(payment, status=_TO[change], **sums)  # type: ignore[arg-type]
            return self.books[payment.key]

        return await self._meet(change, do)

    async def _meet(self, method: str, do: Callable[[], Value]) -> Value:
        self.calls[method] += 1
        trouble = self.troubles[method].pop(0) if self.troubles[method] else None
        match trouble:
            case Trouble.SILENT_BEFORE:
                raise Unavailable("the card acquirer")
            case Trouble.LATE:
                self._late.append(do)
                raise Unavailable("the card acquirer")
            case Trouble.REFUSED:
                return Refusal("REFUSED")  # type: ignore[return-value]  # for methods that may be refused
        done = do()
        if method in self.then:
            await self.then[method]()
        if trouble is Trouble.SILENT_AFTER:
            raise Unavailable("the card acquirer")
        return done
