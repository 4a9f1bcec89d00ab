"""Routers over the subgraphs, or over the merged graph, return what the gateway returns: Apollo's and Hive Gateway."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from graphql import OperationDefinitionNode, parse, print_ast, separate_operations

from gateway.graphql.federation.registry import SUBGRAPHS
from stack.engines.postgres import Postgres
from stack.system import System
from tests.e2e.top_ups import DECLINED, GOOD, card, final_top_up, top_up
from tests.e2e.users import NewUser, OpenAccount, User, insert_user
from tests.node import run_script
from tests.waiting import until
from wallet import cursor

pytestmark = pytest.mark.slow

OPERATIONS = separate_operations(parse(Path(__file__).with_name("router.graphql").read_text()))

ERRORS = {
    "InvalidIds": ["INVALID_INPUT"] * 3,
    "PageSizeZero": ["INVALID_INPUT"],
    "BadCursorInOneOfTwo": ["INVALID_INPUT"],
    "SeveralErrorsInOneEntity": ["INVALID_INPUT"] * 4,
    "InvalidAccountPages": ["INVALID_INPUT"] * 2,
    "TopUpPageSizeZero": ["INVALID_INPUT"],
}
"""Expected error codes by operation."""

SUBSCRIPTIONS = {
    """
    subscription Operations($a: ID!) {
      operationAdded(accountId: $a, after: "djA") {
        id type direction amount { amount currency } balanceAfter { amount } counterparty { id } cursor
      }
    }
    """: 2,
    "subscription Balance($a: ID!) { balanceChanged(accountId: $a) { balance { amount currency } cursor } }": 1,
    """
    subscription TopUp($p: ID!) {
      topUpUpdated(id: $p) { id status account { balance { amount } operations(first: 1) { edges { cursor } } } }
    }
    """: 1,
}
"""Number of events to read by subscription."""

TOP_UPS = "query($id: ID!) { account(id: $id) { topUps(first: 1) { edges { cursor } } } }"
STATISTICS = """
    query Statistics($id: ID!, $from: DateTime!, $to: DateTime!, $granularity: Granularity!) {
      account(id: $id) {
        balance { amount }
        statistics(from: $from, to: $to, granularity: $granularity) { isComplete buckets { closing { amount } } }
      }
    }
"""


def requests(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the requests by operation name, each with its fragments and variables."""
    by_name = {}
    for name, document in OPERATIONS.items():
        (operation,) = (part for part in document.definitions if isinstance(part, OperationDefinitionNode))
        variables = [each.variable.name.value for each in operation.variable_definitions or ()]
        by_name[name] = {"query": print_ast(document), "variables": {each: values[each] for each in variables}}
    return by_name


def run_router(subgraphs: dict[str, str], user: User, queries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run a router over these subgraphs, send the queries with the user's token, and return the responses."""
    given = {"subgraphs": subgraphs, "headers": {"authorization": f"Bearer {user.token}"}, "queries": queries}
    responses: list[dict[str, Any]] = run_script("router.mjs", package="@apollo/gateway", stdin=json.dumps(given))
    return responses


def run_hive(
    gateway: str, subgraphs: dict[str, str], user: User, queries: list[dict[str, Any]], values: dict[str, Any]
) -> dict[str, Any]:
    """Run Hive Gateway over these subgraphs, and return what it prints."""
    subscriptions = [
        {
            "query": query,
            "variables": {name: value for name, value in values.items() if f"${name}:" in query},
            "take": n,
        }
        for query, n in SUBSCRIPTIONS.items()
    ]
    given = {
        "gateway": gateway,
        "subgraphs": subgraphs,
        "headers": {"authorization": f"Bearer {user.token}"},
        "queries": queries,
        "subscriptions": subscriptions,
    }
    printed: dict[str, Any] = run_script("hive.mjs", package="@graphql-hive/gateway-runtime", stdin=json.dumps(given))
    return printed


def comparable(response: dict[str, Any]) -> dict[str, Any]:
    """Return the response's data, and the path and the code of each error."""
    errors = [(each["path"], each["extensions"]["code"]) for each in response.get("errors", [])]
    return {"data": response["data"], "errors": sorted(errors)}


def day() -> dict[str, str]:
    """Return statistics arguments for a day that ends one hour from now."""
    end = datetime.now(UTC) + timedelta(hours=1)
    return {"from": (end - timedelta(days=1)).isoformat(), "to": end.isoformat(), "granularity": "HOUR"}


async def has_all_operations(user: User, *accounts: str) -> bool:
    """Return whether analytics has stored all operations of the accounts."""
    for id_ in accounts:
        account = (await user.query(STATISTICS, id=id_, **day()))["data"]["account"]
        statistics = account["statistics"]
        if not statistics["isComplete"] or statistics["buckets"][-1]["closing"] != account["balance"]:
            return False
    return True


async def test_router_returns_the_same_results_as_the_gateway(
    system: System, alice: User, bob: User, new_user: NewUser, open_account: OpenAccount
) -> None:
    second, empty, carol = await open_account(alice.subject), await open_account(alice.subject), await new_user()
    identity = await asyncpg.connect(Postgres(system.data, system.ports.postgres).dsn("identity"))
    await insert_user(identity, alice.subject, f"u{uuid.uuid4().hex}")
    await identity.close()
    for amount in ("1.00", "2.00", "3.50", "4.00"):
        to_bob = await alice.transfer(bob.account, amount)
        to_self = await alice.transfer(alice.account, amount, sender=second)
    others = await bob.transfer(carol.account, "1")
    await alice.transfer(bob.account, "5", key="taken")
    paid, others_paid = [await top_up(user, GOOD, amount) for user, amount in ((alice, "10.00"), (bob, "20.00"))]
    await final_top_up(alice, paid.headers["Location"])
    await top_up(alice, GOOD, "30.00", key="charged")
    await until(lambda: has_all_operations(alice, alice.account, second))
    (newest,) = (await alice.query(TOP_UPS, id=alice.account))["data"]["account"]["topUps"]["edges"]
    order = {"senderId": alice.account, "recipientId": bob.account, "amount": "1.25"}
    charge = {"accountId": alice.account, "amount": "5.00", "card": card(GOOD)}
    operations = requests(
        {
            "a": alice.account,
            "b": second,
            "empty": empty,
            "bobs": bob.account,
            "nobody": str(uuid.uuid4()),
            "t": to_bob.json()["id"],
            "u": to_self.json()["id"],
            "others": others.json()["id"],
            "yes": True,
            "no": False,
            "two": 2,
            "account": cursor.encode_id(UUID(min(alice.account, second, empty))),
            "open": {"currency": "USD", "idempotencyKey": "open"},
            "other": {"idempotencyKey": "open"},
            "none": {"currency": "???", "idempotencyKey": ""},
            "cursor": (await alice.operations())["operations"][2]["cursor"],
            "filter": {"direction": "OUT", "counterpartyId": bob.account, "maxAmount": "4"},
            **day(),
            "pay": order | {"idempotencyKey": "pay"},
            "poor": order | {"amount": "5000", "idempotencyKey": "poor"},
            "lost": order | {"recipientId": str(uuid.uuid4()), "idempotencyKey": "lost"},
            "mixed": order | {"currency": "USD", "idempotencyKey": "mixed"},
            "wrong": order | {"recipientId": "42", "amount": "-1", "idempotencyKey": "wrong"},
            "stolen": order | {"senderId": bob.account, "idempotencyKey": "stolen"},
            "conflict": order | {"idempotencyKey": "taken"},
            "p": paid.json()["id"],
            "othersTopUp": others_paid.json()["id"],
            "topUpCursor": newest["cursor"],
            "charge": charge | {"idempotencyKey": "charge"},
            "declined": charge | {"card": card(DECLINED), "idempotencyKey": "declined"},
            "tooMuch": charge | {"amount": "1000000.00", "idempotencyKey": "too much"},
            "nowhere": charge | {"accountId": str(uuid.uuid4()), "idempotencyKey": "nowhere"},
            "inDollars": charge | {"currency": "USD", "idempotencyKey": "in dollars"},
            "noCard": charge | {"card": card("42"), "idempotencyKey": "no card"},
            "again": charge | {"idempotencyKey": "charged"},
        }
    )

    async def query_gateway() -> dict[str, dict[str, Any]]:
        return {
            name: comparable(await alice.query(each["query"], **each["variables"])) for name, each in operations.items()
        }

    await query_gateway()  # executes the mutations; later requests are replays of them
    await until(lambda: has_all_operations(alice, alice.account, second))
    expected = await query_gateway()
    apart = {name: f"{system.url}/subgraphs/{name}/graphql" for name in SUBGRAPHS}
    for subgraphs in (apart, {"wallet": f"{system.url}/graphql"}):
        responses = await asyncio.to_thread(run_router, subgraphs, alice, list(operations.values()))
        assert dict(zip(operations, map(comparable, responses), strict=True)) == expected
    followed = {"a": alice.account, "p": paid.json()["id"]}
    hive = await asyncio.to_thread(run_hive, f"{system.url}/graphql", apart, alice, list(operations.values()), followed)
    assert dict(zip(operations, map(comparable, hive["responses"]), strict=True)) == expected
    assert hive["events"]["hive"] == hive["events"]["gateway"]
    events = [event for each in hive["events"]["hive"] for event in each]
    assert ["errors" in event for event in events] == [False] * sum(SUBSCRIPTIONS.values())
    codes = {
        name: [code for _, code in response["errors"]] for name, response in expected.items() if response["errors"]
    }
    assert codes == ERRORS
    refused = {each["__typename"] for each in expected["RefusedTransfers"]["data"].values()}
    assert refused == {
        "InsufficientFunds",
        "AccountNotFound",
        "CurrencyMismatch",
        "InvalidInput",
        "IdempotencyConflict",
    }
    charged = expected["TopUp"]["data"]["topUpAccount"]
    assert (charged["__typename"], charged["topUp"]["status"]) == ("TopUpAccountSuccess", "COMPLETED")
    assert expected["CardDeclined"]["data"]["topUpAccount"]["__typename"] == "CardDeclined"
    no_card = {name: each["__typename"] for name, each in expected["RefusedTopUps"]["data"].items()}
    assert no_card == {
        "tooMuch": "TopUpLimitExceeded",
        "nowhere": "AccountNotFound",
        "inDollars": "CurrencyMismatch",
        "noCard": "InvalidInput",
        "again": "IdempotencyConflict",
    }


async def test_subgraph_without_token_returns_its_schema_only(system: System) -> None:
    schema = {"query": "{ _service { sdl } }"}
    entities = {
        "query": "query($of: [_Any!]!) { _entities(representations: $of) { ... on Account { id } } }",
        "variables": {"of": [{"__typename": "Account", "id": str(uuid.uuid4())}]},
    }
    async with httpx.AsyncClient(base_url=f"{system.url}/subgraphs/bank") as anonymous:
        response = (await anonymous.post("/graphql", json=schema)).json()
        assert "type Account @key" in response["data"]["_service"]["sdl"]
        refused = (await anonymous.post("/graphql", json=entities)).json()
        assert refused["data"] is None
        assert [error["extensions"]["code"] for error in refused["errors"]] == ["UNAUTHENTICATED"]
        junk = await anonymous.post("/graphql", json=schema, headers={"Authorization": "Bearer junk"})
        assert junk.status_code == 401
