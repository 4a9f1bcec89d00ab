"""Users of the end-to-end tests."""

import uuid
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import asyncpg
import httpx
from argon2 import PasswordHasher

from tests.waiting import until

PASSWORD = "correct horse battery"
_HASH = PasswordHasher(time_cost=1, memory_cost=1024).hash(PASSWORD)  # as cheap as `CHEAP_HASHES` of `plans.py`


class User:
    """User with an account, a REST client that validates responses against the contract, and a GraphQL client."""

    def __init__(self, subject: str, account: str, http: httpx.AsyncClient, token: str) -> None:
        self.subject = subject
        self.account = account
        self.http = http
        self.token = token

    async def transfer(
        self,
        recipient: str,
        amount: Any,
        key: str | None = None,
        sender: str | None = None,
        **body: Any,
    ) -> httpx.Response:
        """Post a transfer, by default from the user's account and with a new key."""
        return await self.http.post(
            f"/accounts/{sender or self.account}/transfers",
            json={"recipientId": recipient, "amount": amount, **body},
            headers={"Idempotency-Key": key or str(uuid.uuid4())},
        )

    async def balance(self) -> Decimal:
        """Return the account's current balance."""
        response = await self.http.get(f"/accounts/{self.account}")
        assert response.status_code == 200, response.text
        return Decimal(response.json()["balance"])

    async def operations(self, **params: Any) -> dict[str, Any]:
        """Return a page of the account's operations."""
        response = await self.http.get(f"/accounts/{self.account}/operations", params=params)
        assert response.status_code == 200, response.text
        page: dict[str, Any] = response.json()
        return page

    async def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send a GraphQL request and return the response body, errors included."""
        response = await self.http.post("/graphql", json={"query": query, "variables": variables})
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()
        return result


async def transfer_until_known(user: User, recipient: str, amount: str) -> httpx.Response:
    """Transfer with one key, and repeat the request until the outcome is known, as the API's documentation advises."""
    key = str(uuid.uuid4())

    async def known() -> httpx.Response | None:
        try:
            response = await user.transfer(recipient, amount, key=key)
        except httpx.TransportError:
            return None
        return response if response.status_code not in {503, 504} else None

    response = await until(known, within=20)
    assert response is not None
    return response


async def insert_user(sql: asyncpg.Connection, subject: str, username: str) -> None:
    """Insert the subject of a token as a user into identity's database."""
    await sql.execute("INSERT INTO users (id, username, password_hash) VALUES ($1, $2, $3)", subject, username, _HASH)


OpenAccount = Callable[..., Awaitable[str]]
"""Open an account. Arguments: owner, balance, currency."""

NewUser = Callable[..., Awaitable[User]]
"""Create a user with an account. Arguments: balance, currency."""
