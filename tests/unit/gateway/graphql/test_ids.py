"""Every id that the graph takes must be a UUID; another text is an error that names the field."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pytest
from graphql import GraphQLInputObjectType, GraphQLObjectType, get_named_type

from gateway.graphql.execution.runner import OperationRunner
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.transport.responses import format_result
from kit.auth.principal import Principal, Role
from kit.rpc import request_context
from tests.unit.gateway.graphql.full_services import ID, FullServices
from tests.unit.gateway.graphql.policies import new_policy

CUSTOMER: Final = Principal("issuer", "alice", is_service=False, expires_at=2.0**33, roles=frozenset({Role.CUSTOMER}))
SCHEMA: Final = build_merged_schema(partial(OperationRunner, new_policy()))

NULLS: Final = {
    "Query.account(id)": ("query($id: ID!) { field: account(id: $id) { id } }", "id"),
    "Query.transfer(id)": ("query($id: ID!) { field: transfer(id: $id) { id } }", "id"),
    "Query.node(id)": ("query($id: ID!) { field: node(id: $id) { id } }", "id"),
    "Query.topUp(id)": ("query($id: ID!) { field: topUp(id: $id) { id } }", "id"),
}
"""By argument, a query that is null for an unknown id, and the name of the invalid field."""

SUBSCRIPTIONS: Final = {
    "Subscription.topUpUpdated(id)": ("subscription($id: ID!) { topUpUpdated(id: $id) { id } }", "id"),
    "Subscription.operationAdded(accountId)": (
        "subscription($id: ID!) { operationAdded(accountId: $id) { id } }",
        "accountId",
    ),
    "Subscription.balanceChanged(accountId)": (
        "subscription($id: ID!) { balanceChanged(accountId: $id) { cursor } }",
        "accountId",
    ),
}
TRANSFER: Final = """
    mutation($sender: ID!, $recipient: ID!) {
      field: transferMoney(input: {senderId: $sender, recipientId: $recipient, amount: "1", idempotencyKey: "k"}) {
        ... on InvalidInput { fields { field message } }
      }
    }
"""
TOP_UP: Final = """
    mutation($id: ID!, $digits: Secret!) {
      field: topUpAccount(input: {
        accountId: $id, amount: "1", idempotencyKey: "k"
        card: {number: $digits, expiryMonth: 1, expiryYear: 2031, cvv: $digits}
      }) { ... on InvalidInput { fields { field message } } }
    }
"""
FILTER: Final = """
    query($account: ID!, $id: ID!) {
      account(id: $account) { operations(filter: {counterpartyId: $id}) { isComplete } }
    }
"""
NODES: Final = "query($ids: [ID!]!) { nodes(ids: $ids) { id } }"
OTHERS: Final = {
    "Query.nodes(ids)",
    "TransferMoneyInput.senderId",
    "TransferMoneyInput.recipientId",
    "TopUpAccountInput.accountId",
    "CloseAccountInput.accountId",
    "FreezeAccountInput.accountId",
    "ThawAccountInput.accountId",
    "SetAccountFloorInput.accountId",
    "OperationFilter.counterpartyId",
}
"""Fields of inputs that are ids."""

INVALID: Final = pytest.mark.parametrize(
    "id_", [5, "5", "", "nobody", ID.hex, f"{{{ID}}}", f" {ID}", f"{ID}0", str(ID)[:-1] + "g"]
)


@pytest.fixture(autouse=True)
def caller() -> None:
    request_context.current_request.set(request_context.RequestContext("the-request", principal=CUSTOMER))


async def execute(text: str, **variables: object) -> dict[str, Any]:
    context = FullServices().context()
    context.operations = []
    return format_result(await SCHEMA.execute(text, variable_values=variables, context_value=context))


async def stream(text: str, **variables: object) -> list[dict[str, Any]]:
    context = FullServices().context()
    context.operations = []
    results: Any = await SCHEMA.stream(text, variable_values=variables, context_value=context)
    return [format_result(each) async for each in results]


def invalid_input(field: str, *path: str) -> dict[str, Any]:
    """Return the relevant members of the error about a malformed id."""
    return {"code": "INVALID_INPUT", "message": f"{field}: must be a UUID", "path": list(path)}


def summarize(error: dict[str, Any]) -> dict[str, Any]:
    return {"code": error["extensions"]["code"], "message": error["message"], "path": error.get("path")}


@INVALID
@pytest.mark.parametrize(("text", "field"), NULLS.values(), ids=NULLS)
async def test_malformed_id_of_a_query_is_null_with_an_error(text: str, field: str, id_: object) -> None:
    response = await execute(text, id=id_)
    assert response["data"] == {"field": None}
    assert [summarize(each) for each in response["errors"]] == [invalid_input(field, "field")]


@INVALID
async def test_malformed_id_of_a_filter_is_an_error_of_its_field(id_: object) -> None:
    response = await execute(FILTER, account=str(ID), id=id_)
    assert response["data"] == {"account": {"operations": None}}
    assert [summarize(each) for each in response["errors"]] == [
        invalid_input("counterpartyId", "account", "operations")
    ]


@INVALID
async def test_malformed_id_of_nodes_is_null_with_an_error_beside_the_other_ids(id_: object) -> None:
    response = await execute(NODES, ids=[str(ID), id_])
    assert response["data"] == {"nodes": [{"id": str(ID)}, None]}
    assert [summarize(each) for each in response["errors"]] == [
        {"code": "INVALID_INPUT", "message": "ids: must be a UUID", "path": ["nodes", 1]}
    ]


@INVALID
async def test_malformed_ids_of_a_mutation_are_named(id_: object) -> None:
    transfer = await execute(TRANSFER, sender=id_, recipient=id_)
    top_up = await execute(TOP_UP, id=id_, digits="42")
    for response, names in ((transfer, ["senderId", "recipientId"]), (top_up, ["accountId"])):
        expected = [{"field": name, "message": "must be a UUID"} for name in names]
        assert response == {"data": {"field": {"fields": expected}}}


@INVALID
@pytest.mark.parametrize(("text", "field"), SUBSCRIPTIONS.values(), ids=SUBSCRIPTIONS)
async def test_malformed_id_of_a_subscription_is_an_error(text: str, field: str, id_: object) -> None:
    (response,) = await stream(text, id=id_)
    (error,) = response["errors"]
    assert (error["extensions"]["code"], error["message"]) == ("INVALID_INPUT", f"{field}: must be a UUID")


@pytest.mark.parametrize("text", [text for text, _ in NULLS.values()], ids=NULLS)
async def test_id_in_capital_letters_is_valid(text: str) -> None:
    assert await execute(text, id=str(ID).upper()) == {"data": {"field": {"id": str(ID)}}}


def test_every_id_of_the_graph_is_tested() -> None:
    assert set(id_names()) == {*NULLS, *SUBSCRIPTIONS, *OTHERS}


def id_names() -> Iterator[str]:
    """Yield the arguments and the fields of inputs that are ids."""
    for name, type_ in SCHEMA.core_schema.type_map.items():
        if isinstance(type_, GraphQLInputObjectType):
            yield from (f"{name}.{field}" for field, of in type_.fields.items() if get_named_type(of.type).name == "ID")
        elif isinstance(type_, GraphQLObjectType) and not name.startswith("__"):
            for field, of in type_.fields.items():
                names = [each for each, argument in of.args.items() if get_named_type(argument.type).name == "ID"]
                yield from (f"{name}.{field}({each})" for each in names)
