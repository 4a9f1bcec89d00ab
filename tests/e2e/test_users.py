"""Users of the whole system: registration, login, tokens, accounts."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.tokens import SeedUser, development_token
from kit.auth.principal import Role
from provisioning.seed import CUSTOMERS, STAFF
from stack.system import System
from tests.e2e.users import PASSWORD, OpenAccount, User
from tests.openapi import REST
from tests.waiting import until
from wallet.accounts import clearing_account_id


@pytest.fixture
async def anonymous(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """HTTP client without a token."""
    hooks = {"response": [REST.check_hook]}
    async with httpx.AsyncClient(base_url=system.url, event_hooks=hooks, timeout=15, trust_env=False) as http:
        yield http


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['accessToken']}"}


def credentials(name: str | None = None, password: str = PASSWORD) -> dict[str, str]:
    return {"username": name or f"u{uuid.uuid4().hex}", "password": password}


async def query(anonymous: httpx.AsyncClient, tokens: dict[str, Any], text: str, **variables: Any) -> dict[str, Any]:
    response = await anonymous.post("/graphql", json={"query": text, "variables": variables}, headers=bearer(tokens))
    result: dict[str, Any] = response.json()
    return result


class TestRest:
    async def test_new_user_registers_opens_an_account_and_is_paid(
        self, anonymous: httpx.AsyncClient, alice: User
    ) -> None:
        me = credentials()
        registered = await anonymous.post("/auth/register", json=me)
        assert registered.status_code == 201
        assert registered.json() | {"username": me["username"], "role": "CUSTOMER"} == registered.json()

        signed_in = await anonymous.post("/auth/login", json=me)
        assert (signed_in.status_code, signed_in.headers["cache-control"]) == (200, "no-store")
        tokens = signed_in.json()
        assert (await anonymous.get("/me", headers=bearer(tokens))).json() == registered.json()

        key = {"Idempotency-Key": "mine"}
        opened = await anonymous.post("/accounts", json={"currency": "RUB"}, headers=bearer(tokens) | key)
        assert opened.status_code == 201
        again = await anonymous.post("/accounts", json={}, headers=bearer(tokens) | key)
        assert again.json() == opened.json()
        account = opened.json()["id"]
        assert (await alice.transfer(account, "25.00")).status_code == 201

        refreshed = await anonymous.post("/auth/refresh", json={"refreshToken": tokens["refreshToken"]})
        assert (refreshed.status_code, refreshed.headers["cache-control"]) == (200, "no-store")
        tokens = refreshed.json()
        held = (await anonymous.get("/accounts", headers=bearer(tokens))).json()
        assert [(each["id"], each["balance"], each["status"]) for each in held["accounts"]] == [
            (account, "25.00", "OPEN")
        ]
        assert held["hasMore"] is False
        assert (await anonymous.get(opened.headers["location"], headers=bearer(tokens))).json() == held["accounts"][0]

        gone = await anonymous.post("/auth/logout", json={"refreshToken": tokens["refreshToken"]})
        assert (gone.status_code, gone.content) == (204, b"")
        refused = await anonymous.post("/auth/refresh", json={"refreshToken": tokens["refreshToken"]})
        assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHENTICATED")
        # Issued access tokens stay valid until they expire.
        assert (await anonymous.get("/me", headers=bearer(tokens))).status_code == 200

    async def test_auth_routes_ignore_invalid_access_tokens(self, anonymous: httpx.AsyncClient) -> None:
        me, bad = credentials(), {"Authorization": "Bearer junk"}
        assert (await anonymous.post("/auth/register", json=me, headers=bad)).status_code == 201
        tokens = (await anonymous.post("/auth/login", json=me, headers=bad)).json()
        body = {"refreshToken": tokens["refreshToken"]}
        assert (await anonymous.post("/auth/refresh", json=body, headers=bad)).status_code == 200
        assert (await anonymous.post("/auth/logout", json=body, headers=bad)).status_code == 204

    async def test_login_and_registration_errors_have_distinct_codes(self, anonymous: httpx.AsyncClient) -> None:
        me = credentials()
        await anonymous.post("/auth/register", json=me)
        taken = await anonymous.post("/auth/register", json=me)
        assert (taken.status_code, taken.json()["code"]) == (409, "USERNAME_TAKEN")
        wrong = await anonymous.post("/auth/login", json=credentials(me["username"], "staple battery horse"))
        nobody = await anonymous.post("/auth/login", json=credentials())
        for refused in (wrong, nobody):
            assert (refused.status_code, refused.json()["code"]) == (401, "INVALID_CREDENTIALS")
        assert wrong.json().keys() == nobody.json().keys()
        named = await anonymous.post("/auth/register", json=credentials("No Name", "short"))
        assert named.status_code == 400
        assert {each["field"] for each in named.json()["fields"]} == {"username", "password"}
        own_name = f"u{uuid.uuid4().hex}"
        assert (await anonymous.post("/auth/register", json=credentials(own_name, own_name))).status_code == 400

    async def test_password_change_ends_the_other_sessions(self, anonymous: httpx.AsyncClient) -> None:
        me = credentials()
        await anonymous.post("/auth/register", json=me)
        own, other = [(await anonymous.post("/auth/login", json=me)).json() for _ in range(2)]
        change = {"currentPassword": PASSWORD, "newPassword": PASSWORD[::-1]}
        wrong = change | {"currentPassword": "staple battery horse"}
        refused = await anonymous.post("/auth/password", json=wrong, headers=bearer(own))
        assert (refused.status_code, refused.json()["code"]) == (400, "WRONG_PASSWORD")
        for _ in range(2):
            changed = await anonymous.post("/auth/password", json=change, headers=bearer(own))
            assert (changed.status_code, changed.content) == (204, b"")
        statuses = [
            (await anonymous.post("/auth/refresh", json={"refreshToken": tokens["refreshToken"]})).status_code
            for tokens in (other, own)
        ]
        assert statuses == [401, 200]
        login = {"username": me["username"].upper(), "password": PASSWORD[::-1]}
        assert (await anonymous.post("/auth/login", json=login)).status_code == 200
        assert (await anonymous.post("/auth/login", json=me)).status_code == 401

    async def test_wrong_passwords_lock_the_user_temporarily(self, anonymous: httpx.AsyncClient) -> None:
        guess = credentials()
        for _ in range(5):
            await anonymous.post("/auth/login", json=guess)
        locked = await anonymous.post("/auth/login", json=guess)
        assert (locked.status_code, locked.json()["code"]) == (429, "TOO_MANY_ATTEMPTS")
        assert int(locked.headers["retry-after"]) >= 1

    async def test_accounts_are_paged(self, anonymous: httpx.AsyncClient) -> None:
        me = credentials()
        await anonymous.post("/auth/register", json=me)
        headers = bearer((await anonymous.post("/auth/login", json=me)).json())
        ids = [
            (await anonymous.post("/accounts", json={}, headers=headers | {"Idempotency-Key": str(n)})).json()["id"]
            for n in range(3)
        ]
        first = (await anonymous.get("/accounts", params={"limit": 2}, headers=headers)).json()
        after = first["accounts"][-1]["id"]
        rest = (await anonymous.get("/accounts", params={"limit": 2, "after": after}, headers=headers)).json()
        assert [each["id"] for page in (first, rest) for each in page["accounts"]] == sorted(ids)
        assert (first["hasMore"], rest["hasMore"]) == (True, False)
        assert (await anonymous.get("/accounts", params={"limit": 0}, headers=headers)).status_code == 400

    @pytest.mark.slow
    async def test_refresh_can_be_repeated_after_identity_restarts(
        self, anonymous: httpx.AsyncClient, system: System
    ) -> None:
        me = credentials()
        await anonymous.post("/auth/register", json=me)
        tokens = (await anonymous.post("/auth/login", json=me)).json()
        body = {"refreshToken": tokens["refreshToken"]}
        refresh = asyncio.create_task(anonymous.post("/auth/refresh", json=body))
        await asyncio.sleep(0)
        os.kill(system.pid("identity"), signal.SIGKILL)
        first = await refresh

        async def refreshed_again() -> httpx.Response | None:
            response = await anonymous.post("/auth/refresh", json=body)
            return response if response.status_code == 200 else None

        again = await until(refreshed_again, within=30, every=0.2)
        assert again is not None
        if first.status_code == 200:
            assert first.json()["refreshToken"] == again.json()["refreshToken"]
        else:
            assert first.status_code == 503


class TestGraph:
    async def test_customer_opens_an_account_over_graphql(self, anonymous: httpx.AsyncClient, alice: User) -> None:
        me = credentials()
        user = (await anonymous.post("/auth/register", json=me)).json()
        tokens = (await anonymous.post("/auth/login", json=me)).json()
        text = """mutation($input: OpenAccountInput!) {
            openAccount(input: $input) {
                __typename
                ... on OpenAccountSuccess { account { id status balance { amount currency } owner { id username } } }
                ... on Error { code message }
                ... on InvalidInput { fields { field } }
            }
        }"""
        opened = await query(anonymous, tokens, text, input={"idempotencyKey": "k"})
        account = opened["data"]["openAccount"]["account"]
        assert (
            account
            | {
                "status": "OPEN",
                "balance": {"amount": "0.00", "currency": "RUB"},
                "owner": {"id": user["id"], "username": me["username"]},
            }
            == account
        )
        conflict = await query(anonymous, tokens, text, input={"currency": "USD", "idempotencyKey": "k"})
        assert conflict["data"]["openAccount"]["code"] == "IDEMPOTENCY_CONFLICT"
        for name, invalid in (("idempotencyKey", ""), ("currency", "???")):
            refused = await query(anonymous, tokens, text, input={"idempotencyKey": "l", name: invalid})
            assert [each["field"] for each in refused["data"]["openAccount"]["fields"]] == [name]

        assert (await alice.transfer(account["id"], "3.00")).status_code == 201
        text = """{
            me { id username role createdAt accounts { edges { node { id balance { amount } owner { username } } } } }
            accounts(first: 9) { edges { node { id } } pageInfo { hasNextPage } }
        }"""
        seen = (await query(anonymous, tokens, text))["data"]
        node = {"id": account["id"], "balance": {"amount": "3.00"}, "owner": {"username": me["username"]}}
        assert seen["me"] == {
            "id": user["id"],
            "username": me["username"],
            "role": "CUSTOMER",
            "createdAt": seen["me"]["createdAt"],
            "accounts": {"edges": [{"node": node}]},
        }
        assert seen["accounts"] == {
            "edges": [{"node": {"id": account["id"]}}],
            "pageInfo": {"hasNextPage": False},
        }

    async def test_account_without_owner_has_no_user(self, sign_token: Any, anonymous: httpx.AsyncClient) -> None:
        tokens = {"accessToken": sign_token("an-operator", Role.OPERATOR)}
        text = "query($id: ID!) { account(id: $id) { owner { id } } }"
        response = await query(anonymous, tokens, text, id=str(clearing_account_id("RUB")))
        assert response["data"] == {"account": {"owner": None}}

    async def test_operator_and_admin_see_the_owner(
        self, sign_token: Any, open_account: OpenAccount, anonymous: httpx.AsyncClient
    ) -> None:
        me = credentials()
        user = (await anonymous.post("/auth/register", json=me)).json()
        account = await open_account(user["id"])
        tokens = {"accessToken": sign_token("an-operator", Role.OPERATOR)}
        text = "query($id: ID!) { account(id: $id) { owner { username accounts { edges { node { id } } } } } }"
        response = await query(anonymous, tokens, text, id=account)
        edges = [{"node": {"id": account}}]
        assert response["data"]["account"]["owner"] == {"username": me["username"], "accounts": {"edges": edges}}


class TestDevelopment:
    @pytest.mark.parametrize("name", [*CUSTOMERS, *STAFF])
    async def test_seeded_users_get_a_token_by_command(self, system: System, name: str) -> None:
        token = await asyncio.to_thread(development_token, SeedUser(name), system.data, system.url)
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["sub"] == (CUSTOMERS[name].user if name in CUSTOMERS else STAFF[name])
        assert claims["roles"] == [name if name in STAFF else "customer"]
        assert 43_000 < claims["exp"] - claims["iat"] <= 43_200

    async def test_admin_runs_integrity_checks(self, system: System) -> None:
        token = await asyncio.to_thread(development_token, SeedUser.ADMIN, system.data, system.url)
        address = f"http://127.0.0.1:{system.ports.bank_admin}"
        command = ["integrity", "--admin", address, "--token", token]
        proven = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert (proven.exit_code, "sound" in proven.output) == (0, True), proven.output
