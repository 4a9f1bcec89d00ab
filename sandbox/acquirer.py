"""The acquirer's operations, including the faults that test cards cause."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from openapi.acquirer import Code
from sandbox.behaviours import Behaviour, FaultKind, Step
from sandbox.books import Books
from sandbox.cards import APPROVE, CARDS, Card, card_brand, find_card_error
from sandbox.payments import AuthorizationOrder, Payment, Refusal

WaitForDisconnect = Callable[[], Coroutine[Any, Any, None]]
"""Coroutine function that returns when the merchant has closed its connection."""


class Acquirer:
    """The acquirer's operations. After a `Refusal` with UNAVAILABLE the merchant does not know the outcome."""

    def __init__(self, books: Books, stop: asyncio.Event, *, timeout_seconds: float, late_seconds: float) -> None:
        """Args:
        books: storage of cards, payments and webhooks.
        stop: set at shutdown; it ends the requests that wait in a simulated time-out.
        timeout_seconds: maximum time without a response in a simulated time-out.
        late_seconds: time from the merchant's disconnect to the execution of a `LATE` operation.
        """
        self._books = books
        self._stop = stop
        self._timeout = timeout_seconds
        self._late = late_seconds

    def tokenize(self, number: str, expiry: tuple[int, int], cvv: str) -> Card:
        """Check a card, and store its brand and last four digits under a token. The number and the code are not stored.

        Raises:
            Refusal: INVALID_CARD.
        """
        if problem := find_card_error(number, expiry, cvv, _now().date()):
            raise Refusal(Code.invalid_card, problem)
        token = self._books.token(number, expiry)
        card = Card(token, card_brand(number), number[-4:], CARDS.get(number, APPROVE))
        self._books.save_card(card)
        return card

    async def authorize(self, order: AuthorizationOrder, key: str, wait_for_disconnect: WaitForDisconnect) -> Payment:
        """Authorize a payment and return it, AUTHORIZED or DECLINED. Safe to repeat with the same key.

        Raises:
            Refusal: UNKNOWN_TOKEN, KEY_REUSED, KEY_CANCELLED, UNAVAILABLE.
        """
        behaviour = self._books.card(order.token).behaviour

        def work() -> Payment:
            return self._books.authorize(order, key, _now())

        return await self._run_with_faults(Step.AUTHORIZE, behaviour, key, work, wait_for_disconnect)

    async def change(self, step: Step, payment_id: str, key: str, wait_for_disconnect: WaitForDisconnect) -> Payment:
        """Apply a step to a payment and return it. Safe to repeat with the same key.

        Raises:
            Refusal: NOT_FOUND, KEY_REUSED, KEY_CANCELLED, WRONG_STATUS, REFUSED, UNAVAILABLE.
        """
        behaviour = self._books.payment(payment_id).behaviour

        def work() -> Payment:
            return self._books.change(step, payment_id, key, _now())

        return await self._run_with_faults(step, behaviour, key, work, wait_for_disconnect)

    def cancel(self, key: str) -> Payment | None:
        """Cancel an idempotency key: void its payment and refuse later requests with the key. Safe to repeat.

        Raises:
            Refusal: WRONG_STATUS, KEY_REUSED.
        """
        return self._books.cancel(key, _now())

    def payment(self, payment_id: str) -> Payment:
        """Return the current state of a payment.

        Raises:
            Refusal: NOT_FOUND.
        """
        return self._books.payment(payment_id)

    def payments(self, *, key: str | None, after: str, limit: int) -> list[Payment]:
        """Return a page of payments; with `key`, only the payment that was created with it, if there is one."""
        if key is None:
            return list(self._books.payments(after, limit))
        payment = self._books.authorized_by(key)
        return [payment] if payment else []

    async def _run_with_faults(
        self,
        step: Step,
        behaviour: Behaviour,
        key: str,
        work: Callable[[], Payment],
        wait_for_disconnect: WaitForDisconnect,
    ) -> Payment:
        fault = behaviour.faults.get(step)
        if fault is None or not fault.applies_to(self._books.count_attempt(key)):
            return work()
        if fault.kind is FaultKind.TIMEOUT_AFTER:
            work()
        if fault.kind is not FaultKind.UNAVAILABLE:
            await self._withhold_answer(wait_for_disconnect)
        if fault.kind is FaultKind.LATE and not await self._stops_within(self._late):
            work()
        raise Refusal(Code.unavailable)

    async def _withhold_answer(self, wait_for_disconnect: WaitForDisconnect) -> None:
        ends: list[asyncio.Task[Any]] = [
            asyncio.create_task(wait_for_disconnect()),
            asyncio.create_task(self._stop.wait()),
        ]
        try:
            await asyncio.wait(ends, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    async def _stops_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._stop.wait()
        return False


def _now() -> datetime:
    return datetime.now(UTC)
