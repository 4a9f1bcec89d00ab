"""Closing, freezing, thawing and floors of accounts in the whole system."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx

from kit.auth.principal import Role
from stack.system import System
from tests.e2e.users import OpenAccount, User

CLOSE = """mutation($id: ID!) { closeAccount(input: {accountId: $id}) {
    ... on ChangeAccountSuccess { account { id status } }
    ... on AccountNotEmpty { code accountId }
    ... on Error { code } } }"""
FREEZE = """mutation($id: ID!) { freezeAccount(input: {accountId: $id, frozen: OUTGOING, reason: "report"}) {
    ... on ChangeAccountSuccess { account { frozen } } ... on Error { code } } }"""
THAW = """mutation($id: ID!) { thawAccount(input: {accountId: $id, reason: "found"}) {
    ... on ChangeAccountSuccess { account { frozen } } ... on Error { code } } }"""
FLOOR = """mutation($id: ID!) { setAccountFloor(input: {accountId: $id, floor: "-7", reason: "contract"}) {
    ... on ChangeAccountSuccess { account { floor { amount } available { amount } } }
    ... on FloorAboveBalance { code accountId floor { amount currency } }
    ... on Error { code } } }"""
CHANGES = "query($id: ID!) { account(id: $id) { frozen changes { revision action reason before after } } }"


async def graphql(http: httpx.AsyncClient, query: str, account: str) -> dict[str, Any]:
    response = (await http.post("/graphql", json={"query": query, "variables": {"id": account}})).json()
    assert "errors" not in response, response
    (result,) = response["data"].values()
    assert isinstance(result, dict)
    return result


async def test_account_is_frozen_thawed_and_closed_over_both_apis(
    system: System, alice: User, bob: User, sign_token: Callable[..., str], open_account: OpenAccount
) -> None:
    headers = {"Authorization": f"Bearer {sign_token('the-admin', Role.ADMIN)}"}
    account = f"/accounts/{alice.account}"
    async with httpx.AsyncClient(base_url=system.url, headers=headers, trust_env=False) as admin:
        frozen = await admin.post(f"{account}/freeze", json={"frozen": "ALL", "reason": "report"})
        assert (frozen.status_code, frozen.json()["frozen"]) == (200, "ALL")
        refused = await alice.transfer(bob.account, "1.00")
        assert (refused.status_code, refused.json()["code"]) == (400, "ACCOUNT_FROZEN")
        assert (await alice.http.post(f"{account}/close")).json()["code"] == "ACCOUNT_FROZEN"
        assert await graphql(admin, FREEZE, alice.account) == {"account": {"frozen": "OUTGOING"}}
        assert (await bob.transfer(alice.account, "1.00")).status_code == 201
        assert "frozen" not in (await admin.post(f"{account}/thaw", json={"reason": "found"})).json()
        assert await graphql(admin, THAW, alice.account) == {"account": {"frozen": None}}
        assert (await alice.http.post(f"{account}/close")).json()["code"] == "ACCOUNT_NOT_EMPTY"
        assert await graphql(alice.http, CLOSE, alice.account) == {
            "code": "ACCOUNT_NOT_EMPTY",
            "accountId": alice.account,
        }
        empty = await open_account(alice.subject, "0")
        closed = {"account": {"id": empty, "status": "CLOSED"}}
        assert await graphql(alice.http, CLOSE, empty) == closed
        assert (await alice.http.post(f"/accounts/{empty}/close")).json()["status"] == "CLOSED"
        page = (await admin.get(f"{account}/changes", params={"limit": 2})).json()
        assert [(each["action"], each["reason"]) for each in page["changes"]] == [
            ("THAW", "found"),
            ("FREEZE", "report"),
        ]
        assert page["hasMore"]
        changes = (await graphql(admin, CHANGES, alice.account))["changes"]
        assert [each["revision"] for each in changes] == [3, 2, 1]
        assert (
            changes[-1]
            | {
                "before": {"status": "OPEN", "floor": "0"},
                "after": {"status": "OPEN", "floor": "0", "frozen": "ALL"},
            }
            == changes[-1]
        )


async def test_credit_line_is_set_and_spent_over_both_apis(
    system: System, alice: User, bob: User, sign_token: Callable[..., str], open_account: OpenAccount
) -> None:
    headers = {"Authorization": f"Bearer {sign_token('the-admin', Role.ADMIN)}"}
    empty = await open_account(alice.subject, "0")
    key = {"Idempotency-Key": str(uuid4())}
    async with httpx.AsyncClient(base_url=system.url, headers=headers, trust_env=False) as admin:
        floor = {"floor": "-10.00", "reason": "contract"}
        refused = await alice.http.post(f"/accounts/{empty}/floor", json=floor)
        assert refused.status_code == 403
        changed = (await admin.post(f"/accounts/{empty}/floor", json=floor)).json()
        assert (changed["balance"], changed["floor"], changed["available"]) == ("0.00", "-10.00", "10.00")
        transfer = {"recipientId": bob.account, "amount": "8.00"}
        made = await alice.http.post(f"/accounts/{empty}/transfers", json=transfer, headers=key)
        assert made.status_code == 201
        found = (await alice.http.get(f"/accounts/{empty}")).json()
        assert (found["balance"], found["floor"], found["available"]) == ("-8.00", "-10.00", "2.00")
        assert await graphql(admin, FLOOR, empty) == {
            "code": "FLOOR_ABOVE_BALANCE",
            "accountId": empty,
            "floor": {"amount": "-7.00", "currency": "RUB"},
        }
        above = await admin.post(f"/accounts/{empty}/floor", json=floor | {"floor": "-7.00"})
        assert (above.status_code, above.json()["code"]) == (400, "FLOOR_ABOVE_BALANCE")
        invalid = await admin.post(f"/accounts/{empty}/floor", json=floor | {"floor": "1.00"})
        assert (invalid.status_code, invalid.json()["code"]) == (400, "INVALID_INPUT")
        other = await open_account(alice.subject, "0")
        assert await graphql(admin, FLOOR, other) == {
            "account": {"floor": {"amount": "-7.00"}, "available": {"amount": "7.00"}}
        }
