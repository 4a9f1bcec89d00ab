"""Interface of the card acquirer."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Protocol

from subgraphs.card.service.domain.cards import CardDetails, CardToken
from subgraphs.card.service.domain.payment import NoPayment, Payment, Refusal
from wallet.money import Money

current_customer: Final[ContextVar[str]] = ContextVar("current_customer", default="")
"""Customer for whom the current task calls the acquirer; empty for calls without a customer, such as those of the
integrity check. The circuit breaker counts failed calls by customer."""


@contextmanager
def on_behalf_of(customer: str) -> Iterator[None]:
    """Count the failed calls to the acquirer in the block, and in tasks that start in it, for a customer.

    Args:
        customer: issuer and subject of the user who requested the top-up, as stored with its idempotency key.
    """
    reset = current_customer.set(customer)
    try:
        yield
    finally:
        current_customer.reset(reset)


class Acquirer(Protocol):
    """Interface of the company that takes money from cards.

    Every method that changes a payment takes an idempotency key: repeated calls with one key have one effect and return
    the current state. Every method raises Unavailable if there is no clear response: the outcome is unknown, and the
    same call is safe to repeat.
    """

    async def tokenize(self, card: CardDetails) -> CardToken | Refusal:
        """Return the card's token, which is the same for the same number and expiry. Nothing is charged."""
        ...

    async def authorize(self, key: str, card: CardToken, amount: Money, reference: str) -> Payment | Refusal:
        """Ask the issuer to hold the amount. Return the current payment, which may be declined.

        Args:
            key: identifies the payment.
            card: card to charge.
            amount: amount to hold.
            reference: free text that the acquirer stores with the payment.
        """
        ...

    async def find_payment(self, key: str) -> Payment | NoPayment:
        """Return the payment that was created with the key, even a declined one; `NoPayment` if there is none.

        Until the key is cancelled, a late authorization may create a payment after `NoPayment`.
        """
        ...

    async def cancel(self, key: str) -> Payment | NoPayment | Refusal:
        """Prevent later authorizations with the key, and void the payment if one exists. Refused after a capture."""
        ...

    async def capture(self, payment_id: str, key: str) -> Payment | Refusal:
        """Take the amount that is held."""
        ...

    async def void(self, payment_id: str, key: str) -> Payment | Refusal:
        """Release the amount that is held."""
        ...

    async def refund(self, payment_id: str, key: str) -> Payment | Refusal:
        """Pay the captured amount back to the card."""
        ...

    async def list_payments(self, after: str | None, limit: int) -> list[Payment]:
        """Return at most `limit` payments, oldest first, beginning after the payment with the id `after`. With None,
        the page begins with the oldest payment. The last page has fewer payments than `limit`.
        """
        ...
