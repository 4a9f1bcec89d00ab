"""Transfers by the REST API."""

from loadtests import rest
from loadtests.history.calls import Answer, Wish
from loadtests.plan import Customer
from loadtests.scenarios.person import Payer


class RestTransfers(Payer):
    """What an app does that speaks REST."""

    def transfer(self, wish: Wish, sender: Customer) -> Answer | None:
        """See `Payer`."""
        asked = rest.request(wish)
        return self.post("REST transfer", asked.path, asked.body, sender, wish, rest.answer)
