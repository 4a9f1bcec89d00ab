"""Balances at a time or after a version, over REST and GraphQL, compared with the history."""

from typing import Any

import pytest

from tests.e2e.users import OpenAccount, User
from tests.waiting import until

BALANCES = """
    query($account: ID!, $time: DateTime, $version: Int) {
      account(id: $account) {
        balanceAt(time: $time, version: $version) { balance { amount currency } version occurredAt }
      }
    }
"""


async def get_balance(user: User, account: str, **point: Any) -> dict[str, Any]:
    """Return the balance of REST, which GraphQL has too."""
    params = {{"time": "at"}.get(name, name): value for name, value in point.items()}
    response = await user.http.get(f"/accounts/{account}/balance", params=params)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    in_graph = (await user.query(BALANCES, account=account, **point))["data"]["account"]["balanceAt"]
    assert in_graph["balance"] == {"amount": found["balance"], "currency": found["currency"]}
    time = found.get("occurredAt", "").replace("Z", "+00:00") or None
    assert (in_graph["version"], in_graph["occurredAt"]) == (found["version"], time)
    return found


async def read_history(user: User, length: int) -> list[dict[str, Any]]:
    async def is_complete() -> bool:
        return len((await user.operations())["operations"]) == length

    await until(is_complete, within=30)
    operations: list[dict[str, Any]] = (await user.operations())["operations"]
    return operations


async def test_balances_equal_those_of_the_history(alice: User, bob: User) -> None:
    for amount in ("1.00", "2.50"):
        await alice.transfer(bob.account, amount)
    await bob.transfer(alice.account, "0.25")
    operations = await read_history(alice, 3)
    for each in operations:
        expected = {
            "balance": each["balanceAfter"],
            "currency": each["currency"],
            "version": each["version"],
            "occurredAt": each["occurredAt"],
        }
        assert await get_balance(alice, alice.account, version=each["version"]) == expected
        assert await get_balance(alice, alice.account, time=each["occurredAt"]) == expected
    opening = await get_balance(alice, alice.account, version=0)
    assert (opening["balance"], opening["version"]) == ("1000.00", 0)
    assert await get_balance(alice, alice.account, time="2000-01-01T00:00:00Z") == opening
    current = await get_balance(alice, alice.account, version=3)
    assert await get_balance(alice, alice.account, version=4) == current
    assert await get_balance(alice, alice.account, time="9999-12-31T23:59:59Z") == current
    assert current["balance"] == str(await alice.balance())


async def test_balances_of_other_users_are_not_found(alice: User, bob: User, open_account: OpenAccount) -> None:
    missing = "00000000-0000-4000-8000-000000000000"
    for account in (bob.account, missing):
        response = await alice.http.get(f"/accounts/{account}/balance", params={"version": 0})
        assert (response.status_code, response.json()["code"]) == (404, "ACCOUNT_NOT_FOUND")
        assert (await alice.query(BALANCES, account=account, version=0))["data"] == {"account": None}


@pytest.mark.parametrize(
    ("point", "field"),
    [
        ({}, "at"),
        ({"at": "2026-01-01T00:00:00Z", "version": "1"}, "version"),
        ({"version": "-1"}, "version"),
        ({"at": "2026-01-01T00:00:00"}, "at"),
    ],
)
async def test_invalid_points_are_named(alice: User, point: dict[str, str], field: str) -> None:
    response = await alice.http.get(f"/accounts/{alice.account}/balance", params=point)
    assert response.status_code == 400
    assert [each["field"] for each in response.json()["fields"]] == [field]


@pytest.mark.parametrize(
    ("point", "field"),
    [
        ({}, "time"),
        ({"time": "2026-01-01T00:00:00Z", "version": 1}, "version"),
        ({"version": -1}, "version"),
        ({"time": "2026-01-01T00:00:00"}, "time"),
    ],
)
async def test_invalid_points_are_named_over_graphql(alice: User, point: dict[str, Any], field: str) -> None:
    response = await alice.query(BALANCES, account=alice.account, **point)
    (error,) = response["errors"]
    assert [each["field"] for each in error["extensions"]["fields"]] == [field]
    assert response["data"] == {"account": {"balanceAt": None}}
