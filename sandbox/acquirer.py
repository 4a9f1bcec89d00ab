"""What the acquirer does when it is asked, the trouble that a test card makes included."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from openapi.acquirer import Code
from sandbox.behaviours import Behaviour, Step, Trouble
from sandbox.books import Books
from sandbox.cards import APPROVE, CARDS, Card, brand_of, problem_with
from sandbox.payments import Order, Payment, Refusal

GivenUp = Callable[[], Coroutine[Any, Any, None]]
"""Returns when the merchant waits no longer."""


class Acquirer:
    """The acquirer over its books. Whatever raises `Refusal` with UNAVAILABLE may have been done or not."""

    def __init__(self, books: Books, stop: asyncio.Event, *, silence_seconds: float, late_seconds: float) -> None:
        """Args:
        books: its own.
        stop: set when the process is to end: no request is waited with any more.
        silence_seconds: the longest silence before an answer.
        late_seconds: how long after a request was given up a late authorization comes to be.
        """
        self._books = books
        self._stop = stop
        self._silence = silence_seconds
        self._late = late_seconds

    def tokenize(self, number: str, expiry: tuple[int, int], cvv: str) -> Card:
        """The card of the number and its expiry (year and month). The code is checked and forgotten.

        Raises:
            Refusal: INVALID_CARD.
        """
        if problem := problem_with(number, expiry, cvv, _now().date()):
            raise Refusal(Code.invalid_card, problem)
        token = self._books.token(number, expiry)
        card = Card(token, brand_of(number), number[-4:], CARDS.get(number, APPROVE))
        self._books.remember(card)
        return card

    async def authorize(self, order: Order, key: str, given_up: GivenUp) -> Payment:
        """The payment, AUTHORIZED or DECLINED. The same key again is safe.

        Raises:
            Refusal: UNKNOWN_TOKEN, KEY_REUSED, KEY_CANCELLED, UNAVAILABLE.
        """
        behaviour = self._books.card(order.token).behaviour

        def work() -> Payment:
            return self._books.authorize(order, key, _now())

        return await self._under_trouble(Step.AUTHORIZE, behaviour, key, work, given_up)

    async def change(self, step: Step, payment_id: str, key: str, given_up: GivenUp) -> Payment:
        """The payment after the step. The same key again is safe.

        Raises:
            Refusal: NOT_FOUND, KEY_REUSED, WRONG_STATUS, REFUSED, UNAVAILABLE.
        """
        behaviour = self._books.payment(payment_id).behaviour

        def work() -> Payment:
            return self._books.change(step, payment_id, key, _now())

        return await self._under_trouble(step, behaviour, key, work, given_up)

    def cancel(self, key: str) -> Payment | None:
        """Bars the key; the payment that it has authorized is void. Safe to repeat.

        Raises:
            Refusal: WRONG_STATUS, KEY_REUSED.
        """
        return self._books.cancel(key, _now())

    def payment(self, payment_id: str) -> Payment:
        """The payment as it is now.

        Raises:
            Refusal: NOT_FOUND.
        """
        return self._books.payment(payment_id)

    def payments(self, *, key: str | None, after: str, limit: int) -> list[Payment]:
        """A page of payments, or what the one key has authorized."""
        if key is None:
            return list(self._books.payments(after, limit))
        payment = self._books.authorized_by(key)
        return [payment] if payment else []

    async def _under_trouble(
        self, step: Step, behaviour: Behaviour, key: str, work: Callable[[], Payment], given_up: GivenUp
    ) -> Payment:
        fault = behaviour.faults.get(step)
        if fault is None or not fault.strikes(self._books.attempt(key)):
            return work()
        if fault.trouble is Trouble.SILENT_AFTER:
            work()
        if fault.trouble is not Trouble.UNAVAILABLE:
            await self._be_silent(given_up)
        if fault.trouble is Trouble.SILENT_THEN_LATE and not await self._is_stopped_within(self._late):
            work()
        raise Refusal(Code.unavailable)

    async def _be_silent(self, given_up: GivenUp) -> None:
        ends: list[asyncio.Task[Any]] = [asyncio.create_task(given_up()), asyncio.create_task(self._stop.wait())]
        try:
            await asyncio.wait(ends, timeout=self._silence, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    async def _is_stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._stop.wait()
        return False


def _now() -> datetime:
    return datetime.now(UTC)
