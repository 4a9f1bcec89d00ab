"""Reads of balances and operations, the most frequent requests of an app."""

from collections.abc import Mapping
from typing import Any, Final

from loadtests import rest
from loadtests.choices import Read
from loadtests.history.calls import Answer, NoEffect
from loadtests.plan import Customer
from loadtests.scenarios.users import WalletUser

_OVERVIEW: Final = """query Overview($id: ID!) {
  account(id: $id) {
    balance { amount currency }
    operations(first: 20) { edges { node { id direction amount { amount } balanceAfter { amount } occurredAt } } }
  }
}"""


class Reads(WalletUser):
    """User that reads balances, pages of operations, and both in one GraphQL query, in the proportion 5 : 3 : 2."""

    def act(self) -> None:
        """Send one read."""
        kind, customer = self.choices.next_read()
        match kind:
            case Read.BALANCE:
                self.read_balance(customer)
            case Read.OPERATIONS:
                self.read_operations(customer)
            case Read.OVERVIEW:
                self.read_overview(customer)

    def read_balance(self, customer: Customer) -> None:
        """Read the account over REST."""
        self.send_http("balance", "GET", f"/accounts/{customer.account}", customer, rest.check_read)

    def read_operations(self, customer: Customer) -> None:
        """Read the newest operations over REST."""
        path = f"/accounts/{customer.account}/operations?limit=20"
        self.send_http("operations", "GET", path, customer, rest.check_read)

    def read_overview(self, customer: Customer) -> None:
        """Read balance and operations over GraphQL."""
        operation = {"query": _OVERVIEW, "variables": {"id": customer.account}}
        self.send_http("overview", "POST", "/graphql", customer, _check_graphql_read, json=operation)


def _check_graphql_read(status: int, response: Mapping[str, Any], headers: Mapping[str, str]) -> Answer | None:
    errors = response.get("errors")
    return NoEffect(errors[0]["extensions"]["code"]) if errors else rest.check_read(status, response, headers)
