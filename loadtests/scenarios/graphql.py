"""Transfers by the graph."""

from collections.abc import Mapping
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from loadtests import rest
from loadtests.history.calls import Answer, Receipt, Wish
from loadtests.plan import Customer
from loadtests.scenarios.person import Payer

_TRANSFER: Final = """mutation Transfer($input: TransferMoneyInput!) {
  transferMoney(input: $input) {
    ... on TransferMoneySuccess { transfer { id amount { amount } } balance { amount } }
    ... on InsufficientFunds { needed { amount } available { amount currency } }
    ... on Error { code }
  }
}"""


class GraphQLTransfers(Payer):
    """What a browser does."""

    def transfer(self, wish: Wish, sender: Customer) -> Answer | None:
        """See `Payer`."""
        given = {
            "senderId": sender.account,
            "recipientId": str(wish.body.recipient_id),
            "amount": str(wish.body.amount),
            "idempotencyKey": wish.key.key,
        }
        query = {"query": _TRANSFER, "variables": {"input": given}}
        return self.post("GraphQL transfer", "/graphql", query, sender, wish, _answer)


def _answer(wish: Wish, status: int, told: Mapping[str, Any]) -> Answer:
    if status != HTTPStatus.OK:
        return rest.answer(wish, status, told)
    if errors := told.get("errors"):
        return rest.refused(wish, errors[0]["extensions"]["code"], {})
    result = told["data"]["transferMoney"]
    if "code" in result:
        data = {name: result[name]["amount"] for name in ("needed", "available") if name in result}
        return rest.refused(wish, result["code"], data | {"currency": wish.body.currency})
    amount, left = (Decimal(each["amount"]) for each in (result["transfer"]["amount"], result["balance"]))
    return Receipt(UUID(result["transfer"]["id"]), wish.body.sender_id, None, left, amount)
