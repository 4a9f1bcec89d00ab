"""The card acquirer as the saga needs it."""

from typing import Protocol

from subgraphs.card.service.domain.cards import CardDetails
from subgraphs.card.service.domain.top_up import NoPayment, Payment, Refusal, Token
from wallet.money import Money


class Acquirer(Protocol):
    """Somebody who takes money from cards.

    Every method that changes something takes a key: the same call with the same key does it once, and answers how it is
    now. Every method raises Unavailable when the acquirer does not answer, or not clearly: whether it was done is not
    known then, and the same call again is safe.
    """

    async def tokenize(self, card: CardDetails) -> Token | Refusal:
        """The card's token; the same for the same number and expiry. Nothing is charged."""
        ...

    async def authorize(self, key: str, card: Token, amount: Money, reference: str) -> Payment | Refusal:
        """The issuer holds the sum, or declines: the payment as it is now. `reference` comes back with it."""
        ...

    async def find(self, key: str) -> Payment | NoPayment:
        """The payment that a key authorized. That there is none is not final before the key is cancelled."""
        ...

    async def cancel(self, key: str) -> Payment | NoPayment | Refusal:
        """From now on the key authorizes nothing; a payment that it authorized is voided. A captured one is refused."""
        ...

    async def capture(self, payment_id: str, key: str) -> Payment | Refusal:
        """Takes the sum that is held."""
        ...

    async def void(self, payment_id: str, key: str) -> Payment | Refusal:
        """Lets go of the sum that is held."""
        ...

    async def refund(self, payment_id: str, key: str) -> Payment | Refusal:
        """Gives back the sum that was taken."""
        ...

    async def payments(self, after: str | None, limit: int) -> list[Payment]:
        """All payments, oldest first, a page of them after an id; fewer than the limit means no more."""
        ...
