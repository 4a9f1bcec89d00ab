"""Actions of users during an outage, with their results in the words of the resilience table."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

import httpx

from tests.e2e.feeds import OPERATION_ADDED, subscribe, websocket
from tests.e2e.top_ups import GOOD, card
from tests.e2e.users import User
from tests.waiting import until

ACTIONS: Final = ("account", "transfer", "top-up", "sign-in")
VIEWS: Final = ("operations", "subscription")
"""Views that show the effects of the actions after a short delay."""

UNAVAILABLE: Final = {(503, "UNAVAILABLE"), (504, "DEADLINE_EXCEEDED")}
"""Errors during an outage. DEADLINE_EXCEEDED is for calls that were in progress when a part stopped responding."""

ACCOUNT = "query($id: ID!) { account(id: $id) { balance { amount } } }"
OPERATIONS = "query($id: ID!) { account(id: $id) { balance { amount } operations(first: 5) { edges { cursor } } } }"


CHANGED = "changed"
"""Result if REST and GraphQL disagree, because a part of the system stopped or started between the two requests."""


class UserActivity:
    """Actions of a sender, a recipient with an empty account, and a user who tops up.

    The actions have the names of the columns in `docs/reference/resilience.md`. Their results are the words of its
    cells: `works`, `503`, or `later` if an effect is not visible yet.
    """

    def __init__(self, sender: User, recipient: User, payer: User, credentials: Mapping[str, str]) -> None:
        self.sender = sender
        self.recipient = recipient
        self.payer = payer
        self.paid: list[str] = []
        self.unknown: list[str] = []
        self.balances: list[Decimal] = []
        self._credentials = credentials

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Subscribe to the recipient's operations over one WebSocket during the block."""

        async def follow() -> None:
            feed = subscribe(connection, OPERATION_ADDED, account=self.recipient.account)
            async with aclosing(feed):  # type: ignore[type-var]
                async for data in feed:
                    self.balances.append(Decimal(data["operationAdded"]["balanceAfter"]["amount"]))

        async with websocket(self.recipient) as connection:
            following = asyncio.create_task(follow())
            try:
                yield
                assert not following.done(), "the subscription has ended"
            finally:
                following.cancel()
                await asyncio.wait({following})

    async def do(self, column: str) -> str:
        """Run the action of a column and return its result."""
        action: Callable[[], Awaitable[str]] = getattr(self, column.replace("-", "_"))
        return await action()

    async def has_result(self, column: str, result: str) -> bool:
        return await self.do(column) == result

    async def all_works(self) -> bool:
        """Return whether all actions work, all outcomes are known, and all views show the transfers."""
        if not (await self.all_actions_work() and await self.resolve_unknown()):
            return False
        with suppress(AssertionError):
            return await until(self.all_views_work, within=3)
        return False

    async def resolve_unknown(self) -> bool:
        """Repeat the transfers of unknown outcome with their keys; return whether all outcomes are known."""
        for key in tuple(self.unknown):
            if await self.pay(key) == "works":
                self.unknown.remove(key)
        return not self.unknown

    async def all_actions_work(self) -> bool:
        """Return whether all actions work."""
        for column in ACTIONS:
            if await self.do(column) != "works":
                return False
        return True

    async def all_views_work(self) -> bool:
        return [await self.do(column) for column in VIEWS] == ["works"] * len(VIEWS)

    async def account(self) -> str:
        over_rest = table_word(await self.sender.http.get(f"/accounts/{self.sender.account}"))
        over_graphql = await self.sender.query(ACCOUNT, id=self.sender.account)
        if "errors" in over_graphql:
            assert over_graphql["data"]["account"] is None
            check_errors(over_graphql)
        return over_rest if (over_rest == "503") == ("errors" in over_graphql) else CHANGED

    async def transfer(self) -> str:
        key = str(uuid4())
        result = await self.pay(key)
        if result != "works":
            self.unknown.append(key)
        return result

    async def pay(self, key: str) -> str:
        response = await self.sender.transfer(self.recipient.account, "1.00", key=key)
        if table_word(response) == "works":
            self.paid.append(response.json()["id"])
        return table_word(response)

    async def operations(self) -> str:
        over_rest = await self.sender.http.get(f"/accounts/{self.sender.account}/operations", params={"limit": 1000})
        over_graphql = await self.sender.query(OPERATIONS, id=self.sender.account)
        if table_word(over_rest) == "503":
            if "errors" not in over_graphql:
                return CHANGED
            account = over_graphql["data"]["account"]
            assert account is None or (account["operations"] is None and account["balance"] is not None)
            check_errors(over_graphql)
            return "503"
        stored = [each["id"] for each in over_rest.json()["operations"]]
        return "works" if sorted(stored) == sorted(self.paid) else "later"

    async def subscription(self) -> str:
        return "works" if len(self.balances) == len(self.paid) else "later"

    async def top_up(self) -> str:
        response = await self.payer.http.post(
            f"/accounts/{self.payer.account}/topup",
            json={"amount": "2.00", "card": card(GOOD)},
            headers={"Idempotency-Key": str(uuid4())},
        )
        return (
            table_word(response) if response.status_code != 202 or response.json()["status"] == "COMPLETED" else "later"
        )

    async def sign_in(self) -> str:
        return table_word(await self.sender.http.post("/auth/login", json=self._credentials))


def table_word(response: httpx.Response) -> str:
    """Return the word of the resilience table for a response."""
    if response.is_success:
        return "works"
    problem = response.json()
    assert (response.status_code, problem["code"]) in UNAVAILABLE, problem
    assert response.status_code != 503 or int(response.headers["retry-after"]) >= 1
    return "503"


def check_errors(response: Mapping[str, Any]) -> None:
    """Check that all errors have an expected code."""
    assert {error["extensions"]["code"] for error in response["errors"]} <= {code for _, code in UNAVAILABLE}
