"""GraphQL API of the whole system."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.e2e.users import NewUser, User
from tests.waiting import until

TRANSFER = """
    mutation Transfer($input: TransferMoneyInput!) {
      transferMoney(input: $input) {
        __typename
        ... on TransferMoneySuccess {
          transfer { id sender { id } recipient { id } amount { amount currency } createdAt }
          balance { amount currency }
        }
        ... on InsufficientFunds { code message needed { amount } available { amount currency } }
        ... on AccountNotFound { code message accountId }
        ... on CurrencyMismatch { code accountId currency }
        ... on IdempotencyConflict { code idempotencyKey }
        ... on InvalidInput { code fields { field message } }
      }
    }
"""

OPERATIONS = """
    query Operations($id: ID!, $first: Int, $after: String, $last: Int, $before: String, $filter: OperationFilter) {
      account(id: $id) {
        operations(first: $first, after: $after, last: $last, before: $before, filter: $filter) {
          edges { cursor node { id type direction amount { amount } balanceAfter { amount } counterparty { id } } }
          pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
        }
      }
    }
"""


STATISTICS = """
    query Statistics($id: ID!, $from: DateTime!, $to: DateTime!, $granularity: Granularity!) {
      account(id: $id) {
        statistics(from: $from, to: $to, granularity: $granularity) {
          cursor isComplete
          buckets {
            start end count net { amount } opening { amount } closing { amount currency }
            incoming { count amount { amount } } outgoing { count amount { amount } }
            byType { type incoming { count } outgoing { count amount { amount } } }
          }
        }
      }
    }
"""


async def transfer(user: User, recipient: str, amount: str, key: str | None = None, **more: Any) -> dict[str, Any]:
    given = {
        "senderId": user.account,
        "recipientId": recipient,
        "amount": amount,
        "idempotencyKey": key or str(uuid.uuid4()),
    }
    response = await user.query(TRANSFER, input=given | more)
    assert "errors" not in response, response
    result: dict[str, Any] = response["data"]["transferMoney"]
    return result


async def operations(user: User, **variables: Any) -> dict[str, Any]:
    response = await user.query(OPERATIONS, id=user.account, **variables)
    assert "errors" not in response, response
    page: dict[str, Any] = response["data"]["account"]["operations"]
    return page


class TestTransferMoney:
    async def test_transfer_returns_transfer_and_balance(self, alice: User, bob: User) -> None:
        done = await transfer(alice, bob.account, "10.00")

        assert done["__typename"] == "TransferMoneySuccess"
        assert done["balance"] == {"amount": "990.00", "currency": "RUB"}
        assert done["transfer"]["amount"] == {"amount": "10.00", "currency": "RUB"}
        assert (done["transfer"]["sender"]["id"], done["transfer"]["recipient"]["id"]) == (alice.account, bob.account)
        again = await alice.query("query($id: ID!) { transfer(id: $id) { id createdAt } }", id=done["transfer"]["id"])
        assert again["data"]["transfer"]["createdAt"] == done["transfer"]["createdAt"]

    async def test_graphql_and_rest_share_idempotency_keys(self, alice: User, bob: User) -> None:
        over_rest = (await alice.transfer(bob.account, "10.00", key="k")).json()
        over_graphql = await transfer(alice, bob.account, "10.00", key="k")
        assert over_graphql["transfer"]["id"] == over_rest["id"]
        assert over_graphql["balance"]["amount"] == "990.00"

    async def test_expected_errors_are_data(self, alice: User, bob: User) -> None:
        poor = await transfer(alice, bob.account, "5000")
        assert poor["__typename"] == "InsufficientFunds"
        assert (poor["needed"]["amount"], poor["available"]["amount"]) == ("5000.00", "1000.00")
        lost = await transfer(alice, str(uuid.uuid4()), "1")
        assert lost["__typename"] == "AccountNotFound"
        other = await transfer(alice, alice.account, "1", senderId=bob.account)
        assert (other["__typename"], other["accountId"]) == ("AccountNotFound", bob.account)
        mixed = await transfer(alice, bob.account, "1", currency="USD")
        assert (mixed["__typename"], mixed["currency"]) == ("CurrencyMismatch", "USD")
        await transfer(alice, bob.account, "1", key="k")
        conflict = await transfer(alice, bob.account, "2", key="k")
        assert (conflict["__typename"], conflict["idempotencyKey"]) == ("IdempotencyConflict", "k")

    async def test_invalid_fields_are_named(self, alice: User) -> None:
        wrong = await transfer(alice, "42", "1e3")
        assert wrong["__typename"] == "InvalidInput"
        assert {field["field"] for field in wrong["fields"]} == {"recipientId", "amount"}
        wrong = await transfer(alice, alice.account, "-1")
        assert {field["field"] for field in wrong["fields"]} == {"recipientId", "amount"}
        wrong = await transfer(alice, "42", "1e3", key="k" * 300)
        assert {field["field"] for field in wrong["fields"]} == {"recipientId", "amount", "idempotencyKey"}


class TestQueries:
    async def test_account_of_another_user_is_null(self, alice: User, bob: User) -> None:
        for id_ in (bob.account, str(uuid.uuid4())):
            response = await alice.query("query($id: ID!) { account(id: $id) { id } }", id=id_)
            assert response == {"data": {"account": None}}

    async def test_transfer_of_other_users_is_null(self, alice: User, bob: User, new_user: NewUser) -> None:
        done = await transfer(alice, bob.account, "1")
        eve = await new_user()
        response = await eve.query("query($id: ID!) { transfer(id: $id) { id } }", id=done["transfer"]["id"])
        assert response == {"data": {"transfer": None}}

    async def test_operations_are_a_relay_connection(self, alice: User, bob: User) -> None:
        for number in range(1, 6):
            await transfer(alice, bob.account, str(number))

        async def all_there() -> bool:
            return len((await operations(alice))["edges"]) == 5

        await until(all_there)
        first = await operations(alice, first=2)
        assert [edge["node"]["amount"]["amount"] for edge in first["edges"]] == ["5.00", "4.00"]
        assert (first["pageInfo"]["hasNextPage"], first["pageInfo"]["hasPreviousPage"]) == (True, False)
        second = await operations(alice, first=2, after=first["pageInfo"]["endCursor"])
        assert [edge["node"]["amount"]["amount"] for edge in second["edges"]] == ["3.00", "2.00"]
        back = await operations(alice, last=2, before=second["pageInfo"]["startCursor"])
        assert back["edges"] == first["edges"]
        end = await operations(alice, last=2)
        assert [edge["node"]["amount"]["amount"] for edge in end["edges"]] == ["2.00", "1.00"]
        assert (end["pageInfo"]["hasNextPage"], end["pageInfo"]["hasPreviousPage"]) == (False, True)
        nothing = await operations(alice, filter={"types": []})
        assert (nothing["edges"], nothing["pageInfo"]["hasNextPage"]) == ([], False)
        few = await operations(alice, filter={"minAmount": "2", "maxAmount": "3", "direction": "OUT"})
        assert [edge["node"]["amount"]["amount"] for edge in few["edges"]] == ["3.00", "2.00"]

    async def test_invalid_paging_or_filter_is_an_error_with_code_and_fields(self, alice: User) -> None:
        for variables, field in (
            ({"first": 0}, "first"),
            ({"first": 1, "last": 1}, "last"),
            ({"after": "junk"}, "after"),
            ({"filter": {"minAmount": "x"}}, "minAmount"),
            ({"filter": {"minAmount": ""}}, "minAmount"),
            ({"filter": {"maxAmount": ""}}, "maxAmount"),
            ({"filter": {"counterpartyId": ""}}, "counterpartyId"),
            ({"filter": {"counterpartyId": "42"}}, "counterpartyId"),
            ({"filter": {"from": "2026-01-01T00:00:00"}}, "from"),
        ):
            response = await alice.query(OPERATIONS, id=alice.account, **variables)
            (error,) = response["errors"]
            assert error["extensions"]["code"] == "INVALID_INPUT", variables
            assert [each["field"] for each in error["extensions"]["fields"]] == [field]
            assert response["data"]["account"]["operations"] is None

    async def test_statistics_equal_the_ledger(self, alice: User, bob: User) -> None:
        for amount in ("10.00", "20.50"):
            await transfer(alice, bob.account, amount)
        await transfer(bob, alice.account, "5.25")
        day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        three_days = {
            "from": (day - timedelta(days=1)).isoformat(),
            "to": (day + timedelta(days=2)).isoformat(),  # includes tomorrow, in case midnight passes
            "granularity": "DAY",
        }

        async def all_there() -> dict[str, Any] | None:
            response = await alice.query(STATISTICS, id=alice.account, **three_days)
            assert "errors" not in response, response
            statistics: dict[str, Any] = response["data"]["account"]["statistics"]
            return statistics if sum(bucket["count"] for bucket in statistics["buckets"]) == 3 else None

        statistics = await until(all_there)
        assert statistics is not None
        assert statistics["isComplete"]
        assert statistics["cursor"] == (await operations(alice))["edges"][0]["cursor"]
        buckets = statistics["buckets"]
        assert [bucket["start"] for bucket in buckets[1:]] == [bucket["end"] for bucket in buckets[:-1]]
        assert [bucket["opening"]["amount"] for bucket in buckets[:2]] == ["1000.00", "1000.00"]
        assert buckets[-1]["closing"] == {"amount": str(await alice.balance()), "currency": "RUB"}
        (busy,) = [bucket for bucket in buckets if bucket["count"]]
        assert busy["incoming"] == {"count": 1, "amount": {"amount": "5.25"}}
        assert busy["outgoing"] == {"count": 2, "amount": {"amount": "30.50"}}
        assert busy["net"] == {"amount": "-25.25"}
        assert busy["byType"] == [
            {"type": "TRANSFER", "incoming": {"count": 1}, "outgoing": {"count": 2, "amount": {"amount": "30.50"}}},
        ]

    async def test_statistics_without_operations_have_the_balance(self, alice: User) -> None:
        range_ = {"from": "2026-02-27T12:00:00+03:00", "to": "2026-03-01T00:00:00Z", "granularity": "DAY"}
        response = await alice.query(STATISTICS, id=alice.account, **range_)
        statistics = response["data"]["account"]["statistics"]
        assert [bucket["start"] for bucket in statistics["buckets"]] == [
            "2026-02-27T09:00:00+00:00",
            "2026-02-28T00:00:00+00:00",
        ]
        for bucket in statistics["buckets"]:
            assert (bucket["count"], bucket["opening"]["amount"], bucket["byType"]) == (0, "1000.00", [])
            assert bucket["closing"] == {"amount": "1000.00", "currency": "RUB"}

    async def test_invalid_range_is_an_error_with_code_and_fields(self, alice: User) -> None:
        good = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "granularity": "HOUR"}
        for wrong, field in (
            ({"to": "2026-01-01T00:00:00Z"}, "from"),
            ({"to": "2027-01-01T00:00:00Z"}, "granularity"),
            ({"from": "0001-01-01T00:00:00Z"}, "from"),
            ({"from": "2026-01-01T00:00:00"}, "from"),
            ({"to": "2026-01-02"}, "to"),
        ):
            response = await alice.query(STATISTICS, id=alice.account, **good | wrong)
            (error,) = response["errors"]
            assert error["extensions"]["code"] == "INVALID_INPUT", wrong
            assert [each["field"] for each in error["extensions"]["fields"]] == [field]
            assert response["data"]["account"]["statistics"] is None

    async def test_request_without_token_has_an_error_code(self, alice: User) -> None:
        request = {"query": "query($id: ID!) { account(id: $id) { id } }", "variables": {"id": alice.account}}
        response = await alice.http.post("/graphql", json=request, headers={"Authorization": ""})
        (error,) = response.json()["errors"]
        assert error["extensions"]["code"] == "UNAUTHENTICATED"
        assert error["extensions"]["requestId"] == response.headers["x-request-id"]

    async def test_invalid_document_has_an_error_code(self, alice: User) -> None:
        for query in ("{ nope }", "{", "query { account { id } }"):
            response = await alice.query(query)
            assert response["errors"][0]["extensions"]["code"] == "INVALID_GRAPHQL"


class TestMutationThenQuery:
    async def test_query_after_mutation_reads_its_write(self, alice: User, bob: User) -> None:
        balance = "query($id: ID!) { account(id: $id) { balance { amount } } }"

        async def pay_and_read() -> None:
            done = await transfer(alice, bob.account, "1")
            read = await alice.query(balance, id=alice.account)
            assert float(read["data"]["account"]["balance"]["amount"]) <= float(done["balance"]["amount"])

        await asyncio.gather(*(pay_and_read() for _ in range(10)))
        read = await alice.query(balance, id=alice.account)
        assert read["data"]["account"]["balance"]["amount"] == "990.00"
