"""Batches of transfers in the whole system, over REST and GraphQL."""

from typing import Any
from uuid import uuid4

import httpx

from tests.e2e.users import User

BATCH = """
    mutation($inputs: [TransferMoneyInput!]!) {
      transferMoneyBatch(inputs: $inputs) {
        replayed
        result {
          __typename
          ... on TransferMoneySuccess { transfer { id description } balance { amount } }
          ... on Error { code }
        }
      }
    }
"""


def item(user: User, recipient: str, amount: str = "1.00", **more: Any) -> dict[str, Any]:
    key = {"idempotencyKey": str(uuid4())}
    return {"senderId": user.account, "recipientId": recipient, "amount": amount} | key | more


async def post(user: User, *transfers: Any) -> list[dict[str, Any]]:
    response = await user.http.post("/transfers/batch", json={"transfers": transfers})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


async def mutate(user: User, *inputs: Any) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = (await user.query(BATCH, inputs=inputs))["data"]["transferMoneyBatch"]
    return results


def code(result: dict[str, Any]) -> str:
    return str(result.get("problem", {}).get("code", result["outcome"]))


async def test_results_are_those_of_single_transfers_in_order(alice: User, bob: User) -> None:
    missing = str(uuid4())
    batch = [
        item(alice, bob.account, "600.00", description="Salary"),
        item(alice, bob.account, "600.00"),
        item(alice, missing),
        item(bob, alice.account),
        item(alice, alice.account),
        item(alice, bob.account, "1.001"),
        item(alice, bob.account, "400.00", reference="R1", uniqueReference=True),
        item(alice, bob.account, "0.01", reference="R1", uniqueReference=True),
    ]
    results = await post(alice, *batch)
    assert list(map(code, results)) == [
        "SUCCEEDED",
        "INSUFFICIENT_FUNDS",
        "ACCOUNT_NOT_FOUND",
        "ACCOUNT_NOT_FOUND",
        "INVALID_INPUT",
        "INVALID_INPUT",
        "SUCCEEDED",
        "REFERENCE_USED",
    ]
    assert results[0]["transfer"]["description"] == "Salary"
    assert results[1]["problem"]["available"] == "400.00"
    assert [each["replayed"] for each in results] == [False] * 8
    assert await alice.balance() == 0
    for sent, result in zip(batch, results, strict=True):
        single = await alice.transfer(
            sent["recipientId"],
            sent["amount"],
            sent["idempotencyKey"],
            sent["senderId"],
            **{name: value for name, value in sent.items() if name in {"description", "reference", "uniqueReference"}},
        )
        expected = result.get("transfer") or result["problem"]
        assert single.json() | {"requestId": ""} == expected | {"requestId": ""}
        assert single.status_code == (201 if "transfer" in result else result["problem"]["status"])


async def test_repeated_batch_is_a_replay_over_both_apis(alice: User, bob: User) -> None:
    batch = [item(alice, bob.account), item(alice, bob.account, "5000.00"), item(alice, bob.account, "2.00")]
    first = await post(alice, *batch)
    again = await post(alice, *batch)
    assert [each["replayed"] for each in again] == [True] * 3
    assert [each.get("transfer") for each in again] == [each.get("transfer") for each in first]
    over_graphql = await mutate(alice, *batch, item(alice, bob.account, "3.00"))
    assert [(each["replayed"], each["result"]["__typename"]) for each in over_graphql] == [
        (True, "TransferMoneySuccess"),
        (True, "InsufficientFunds"),
        (True, "TransferMoneySuccess"),
        (False, "TransferMoneySuccess"),
    ]
    assert over_graphql[0]["result"]["transfer"]["id"] == first[0]["transfer"]["id"]
    assert over_graphql[3]["result"]["balance"] == {"amount": "994.00"}
    assert await alice.balance() == 994


async def test_key_is_common_to_all_batches_and_single_transfers(alice: User, bob: User) -> None:
    made = await alice.transfer(bob.account, "1.00", key="k1")
    same, twice, other = await post(
        alice,
        item(alice, bob.account, idempotencyKey='"k1"'),
        item(alice, bob.account, idempotencyKey="k1"),
        item(alice, bob.account, "2.00", idempotencyKey="k1"),
    )
    for replay in (same, twice):
        assert (replay["replayed"], replay["transfer"]) == (True, made.json())
    assert code(other) == "IDEMPOTENCY_CONFLICT"
    assert await alice.balance() == 999


async def test_batch_of_1000_transfers_moves_all_money(alice: User, bob: User) -> None:
    batch = [item(alice, bob.account, "0.50", description=f"part {number}") for number in range(1_000)]
    results = await post(alice, *batch)
    assert [each["transfer"]["description"] for each in results] == [each["description"] for each in batch]
    assert await alice.balance() == 500


async def test_request_without_a_token_is_refused(alice: User) -> None:
    async with httpx.AsyncClient(base_url=alice.http.base_url, trust_env=False) as anonymous:
        refused = await anonymous.post("/transfers/batch", json={"transfers": [item(alice, alice.account)]})
    assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHENTICATED")
