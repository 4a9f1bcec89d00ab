"""Looking, as people mostly do."""

from collections.abc import Mapping
from typing import Any, Final

from loadtests import rest
from loadtests.history.calls import Answer, Nothing
from loadtests.plan import Customer
from loadtests.scenarios.person import Person

_OVERVIEW: Final = """query Overview($id: ID!) {
  account(id: $id) {
    balance { amount currency }
    operations(first: 20) { edges { node { id direction amount { amount } balanceAfter { amount } occurredAt } } }
  }
}"""


class Reads(Person):
    """Balances, pages of the history, and the first screen of an app, which is both."""

    def act(self) -> None:
        """One look."""
        look = self.chance.choices((self.balance, self.page, self.overview), (5, 3, 2))[0]
        look(self.anybody())

    def balance(self, who: Customer) -> None:
        """What there is."""
        self.request("balance", "GET", f"/accounts/{who.account}", who, rest.read)

    def page(self, who: Customer) -> None:
        """What happened last."""
        self.request("operations", "GET", f"/accounts/{who.account}/operations?limit=20", who, rest.read)

    def overview(self, who: Customer) -> None:
        """Both, by the graph."""
        query = {"query": _OVERVIEW, "variables": {"id": who.account}}
        self.request("overview", "POST", "/graphql", who, _of_graph, json=query)


def _of_graph(status: int, told: Mapping[str, Any]) -> Answer | None:
    errors = told.get("errors")
    return Nothing(errors[0]["extensions"]["code"]) if errors else rest.read(status, told)
