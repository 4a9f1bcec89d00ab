"""Transfers over GraphQL."""

from collections.abc import Mapping
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from loadtests import rest
from loadtests.history.calls import Answer, LedgerRequest, Receipt
from loadtests.plan import Customer
from loadtests.scenarios.users import TransferUser

_TRANSFER: Final = """mutation Transfer($input: TransferMoneyInput!) {
  transferMoney(input: $input) {
    ... on TransferMoneySuccess { transfer { id amount { amount } } balance { amount } }
    ... on InsufficientFunds { needed { amount } available { amount currency } }
    ... on Error { code }
  }
}"""


class GraphQLTransfers(TransferUser):
    """User that transfers money over GraphQL, like a browser client."""

    def transfer(self, request: LedgerRequest, sender: Customer) -> Answer | None:
        """Send the `transferMoney` mutation."""
        arguments = {
            "senderId": sender.account,
            "recipientId": str(request.body.recipient_id),
            "amount": str(request.body.amount),
            "idempotencyKey": request.key.key,
            "description": request.body.description,
            "reference": request.body.reference,
            "uniqueReference": request.body.is_reference_unique,
        }
        operation = {"query": _TRANSFER, "variables": {"input": arguments}}
        return self.post_ledger_request("GraphQL transfer", "/graphql", operation, sender, request, _parse_answer)


def _parse_answer(
    request: LedgerRequest, status: int, response: Mapping[str, Any], headers: Mapping[str, str]
) -> Answer:
    if status != HTTPStatus.OK:
        return rest.parse_answer(request, status, response, headers)
    if errors := response.get("errors"):
        return rest.parse_error(request, errors[0]["extensions"]["code"], {})
    result = response["data"]["transferMoney"]
    if "code" in result:
        data = {name: result[name]["amount"] for name in ("needed", "available") if name in result}
        return rest.parse_error(request, result["code"], data | {"currency": request.body.currency})
    amount, balance = (Decimal(each["amount"]) for each in (result["transfer"]["amount"], result["balance"]))
    return Receipt(UUID(result["transfer"]["id"]), request.body.sender_id, None, balance, amount)
