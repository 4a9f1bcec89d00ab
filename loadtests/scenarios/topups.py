"""Paying in by card."""

from decimal import Decimal
from typing import Final
from uuid import UUID, uuid4

from loadtests import rest
from loadtests.history.calls import Answer, Body, Key, Wish
from loadtests.plan import Customer
from loadtests.scenarios.person import Payer
from wallet.accounts import clearing_account_id

_CARDS: Final = (rest.GOOD,) * 7 + tuple(rest.CARDS)
"""Most are good."""


class TopUps(Payer):
    """People who pay in, and ask again by the same key when they are not told."""

    def act(self) -> None:
        """One top-up."""
        who = self.anybody()
        amount = Decimal(self.chance.randint(100, 10_000)) / 100
        body = Body(clearing_account_id("RUB"), UUID(who.account), amount)
        key = f"{self.chance.choice(_CARDS)}-{uuid4().hex}"
        self.insist(Wish(Key(who.principal, "top-up", key), body, None), who)

    def transfer(self, wish: Wish, sender: Customer) -> Answer | None:
        """See `Payer`."""
        asked = rest.request(wish)
        return self.post("top-up", asked.path, asked.body, sender, wish, rest.answer)
