"""Words on transfers in the whole system: REST, GraphQL, the history and live feeds."""

from typing import Any
from uuid import uuid4

import httpx

from tests.e2e.feeds import next_value, subscribe, websocket
from tests.e2e.users import User
from tests.waiting import until

WORDS: dict[str, Any] = {"description": "Rent \U0001f3e0 for March", "reference": "INV-1", "metadata": {"order": "42"}}
CARD = "4242 4242 4242 4242"

TRANSFER = """
    mutation($input: TransferMoneyInput!) {
      transferMoney(input: $input) {
        ... on TransferMoneySuccess { transfer { id description reference metadata } }
        ... on ReferenceUsed { code accountId reference }
        ... on InvalidInput { code fields { field } }
      }
    }
"""
TRANSFERS = """
    query($account: ID!) {
      account(id: $account) {
        transfers(reference: "INV-1") { edges { node { id description } } pageInfo { hasNextPage } }
      }
    }
"""
FILTERED = """
    query($account: ID!, $filter: OperationFilter) {
      account(id: $account) {
        operations(filter: $filter) { edges { node { id description reference metadata } } }
      }
    }
"""
OPERATION_ADDED = """
    subscription($account: ID!, $after: String) {
      operationAdded(accountId: $account, after: $after) { id description reference metadata }
    }
"""


async def transfer(user: User, recipient: str, **words: Any) -> dict[str, Any]:
    money = {"senderId": user.account, "recipientId": recipient, "amount": "1.00", "idempotencyKey": str(uuid4())}
    response = await user.query(TRANSFER, input=money | words)
    result: dict[str, Any] = response["data"]["transferMoney"]
    return result


async def found(user: User, **filters: Any) -> list[dict[str, Any]]:
    response = await user.query(FILTERED, account=user.account, filter=filters)
    return [edge["node"] for edge in response["data"]["account"]["operations"]["edges"]]


class TestWords:
    async def test_words_reach_the_transfer_the_history_and_the_feed(self, alice: User, bob: User) -> None:
        made = await alice.transfer(bob.account, "1.00", **WORDS)
        assert (made.status_code, made.json()) == (201, made.json() | WORDS)
        id_ = made.json()["id"]
        seen_by_bob = (await bob.http.get(f"/accounts/{bob.account}/transfers/{id_}")).json()
        assert seen_by_bob["description"] == WORDS["description"]
        assert not {"reference", "metadata"} & seen_by_bob.keys()

        async with websocket(bob) as connection:
            feed = subscribe(connection, OPERATION_ADDED, account=bob.account, after="djA")
            added = await next_value(feed, "operationAdded")
        assert added == {"id": id_, "description": WORDS["description"], "reference": None, "metadata": None}

        async def is_stored() -> bool:
            return len((await alice.operations())["operations"]) == 1

        await until(is_stored)
        (operation,) = (await alice.operations(reference="INV-1"))["operations"]
        assert operation == operation | WORDS
        for matching in ({"text": "RENT"}, {"metadataKey": "order", "metadataValue": "42"}, {"text": "\U0001f3e0"}):
            assert len((await alice.operations(**matching))["operations"]) == 1, matching
        for other in ({"text": "rents"}, {"metadataKey": "order", "metadataValue": "4"}, {"reference": "INV"}):
            assert (await alice.operations(**other))["operations"] == [], other
        half = await alice.http.get(f"/accounts/{alice.account}/operations", params={"metadataKey": "order"})
        assert (half.status_code, half.json()["fields"][0]["field"]) == (400, "metadataValue")
        assert await found(alice, metadata={"order": "42"}, text="march") == [{"id": id_, **WORDS}]
        assert await found(bob, metadata={"order": "42"}) == []
        assert await found(bob, reference="INV-1") == []

    async def test_used_reference_is_a_conflict_in_both_apis(self, alice: User, bob: User) -> None:
        first = await transfer(alice, bob.account, **WORDS)
        assert first["transfer"] == first["transfer"] | WORDS
        unique: dict[str, Any] = {"reference": "INV-1", "uniqueReference": True}
        assert await transfer(alice, bob.account, **unique) == {
            "code": "REFERENCE_USED",
            "accountId": alice.account,
            "reference": "INV-1",
        }
        refused = await alice.transfer(bob.account, "1.00", **unique)
        assert (refused.status_code, refused.json()["code"]) == (409, "REFERENCE_USED")
        listed = await alice.http.get(f"/accounts/{alice.account}/transfers", params={"reference": "INV-1"})
        assert [each["id"] for each in listed.json()["transfers"]] == [first["transfer"]["id"]]
        page = (await alice.query(TRANSFERS, account=alice.account))["data"]["account"]["transfers"]
        assert page["edges"] == [{"node": {"id": first["transfer"]["id"], "description": WORDS["description"]}}]
        assert (await bob.query(TRANSFERS, account=alice.account))["data"]["account"] is None

    async def test_card_number_in_a_word_is_refused_and_not_repeated(self, alice: User, bob: User) -> None:
        refused: httpx.Response = await alice.transfer(bob.account, "1.00", description=f"card {CARD}")
        assert (refused.status_code, refused.json()["fields"][0]["field"]) == (400, "description")
        assert "4242" not in refused.text
        response = await transfer(alice, bob.account, metadata={"card": CARD})
        assert (response["code"], response["fields"]) == ("INVALID_INPUT", [{"field": "metadata"}])
