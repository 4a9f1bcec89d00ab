"""People who go on doing what they do, whatever is lost, and say what comes of it."""

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

DONE: Final = ("account", "transfer", "top-up", "sign-in")
SHOWN: Final = ("operations", "feed")
"""What follows the others: a moment later where it works."""

AWAY: Final = {(503, "UNAVAILABLE"), (504, "DEADLINE_EXCEEDED")}
"""How it is said that a part is away: the latter to whoever had begun to wait for one that is silent."""

ACCOUNT = "query($id: ID!) { account(id: $id) { balance { amount } } }"
OPERATIONS = "query($id: ID!) { account(id: $id) { balance { amount } operations(first: 5) { edges { cursor } } } }"


CHANGED = "changed"
"""REST and the graph were asked one after the other, and between the two the part went or came."""


class People:
    """A sender, a recipient who starts with nothing, and one who pays in by card. What they do is named by the columns
    of `docs/reference/resilience.md`, and what comes of it by its words: `works`, `503`, or `later` where something is
    not there yet.
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
        """The recipient follows their account meanwhile, by one WebSocket."""

        async def follow() -> None:
            feed = subscribe(connection, OPERATION_ADDED, account=self.recipient.account)
            async with aclosing(feed):  # type: ignore[type-var]
                async for data in feed:
                    self.balances.append(Decimal(data["operationAdded"]["balanceAfter"]["amount"]))

        async with websocket(self.recipient) as connection:
            following = asyncio.create_task(follow())
            try:
                yield
                assert not following.done(), "the feed has ended"
            finally:
                following.cancel()
                await asyncio.wait({following})

    async def do(self, column: str) -> str:
        """What becomes of what the column is about."""
        action: Callable[[], Awaitable[str]] = getattr(self, column.replace("-", "_"))
        return await action()

    async def becomes(self, column: str, word: str) -> bool:
        return await self.do(column) == word

    async def all_works(self) -> bool:
        """Whether whatever is done works, and what was done is seen."""
        if not await self.all_done():
            return False
        with suppress(AssertionError):
            return await until(self.all_shown, within=3)
        return False

    async def all_done(self) -> bool:
        """Whether whatever is done works."""
        for column in DONE:
            if await self.do(column) != "works":
                return False
        return True

    async def all_shown(self) -> bool:
        return [await self.do(column) for column in SHOWN] == ["works"] * len(SHOWN)

    async def account(self) -> str:
        by_rest = said(await self.sender.http.get(f"/accounts/{self.sender.account}"))
        by_graph = await self.sender.query(ACCOUNT, id=self.sender.account)
        if "errors" in by_graph:
            assert by_graph["data"]["account"] is None
            check_errors(by_graph)
        return by_rest if (by_rest == "503") == ("errors" in by_graph) else CHANGED

    async def transfer(self) -> str:
        key = str(uuid4())
        word = await self.pay(key)
        if word != "works":
            self.unknown.append(key)
        return word

    async def pay(self, key: str) -> str:
        answer = await self.sender.transfer(self.recipient.account, "1.00", key=key)
        if said(answer) == "works":
            self.paid.append(answer.json()["id"])
        return said(answer)

    async def operations(self) -> str:
        by_rest = await self.sender.http.get(f"/accounts/{self.sender.account}/operations", params={"limit": 1000})
        by_graph = await self.sender.query(OPERATIONS, id=self.sender.account)
        if said(by_rest) == "503":
            if "errors" not in by_graph:
                return CHANGED
            account = by_graph["data"]["account"]
            assert account is None or (account["operations"] is None and account["balance"] is not None)
            check_errors(by_graph)
            return "503"
        stored = [each["id"] for each in by_rest.json()["operations"]]
        return "works" if stored == self.paid[::-1] else "later"

    async def feed(self) -> str:
        return "works" if len(self.balances) == len(self.paid) else "later"

    async def top_up(self) -> str:
        answer = await self.payer.http.post(
            f"/accounts/{self.payer.account}/topup",
            json={"amount": "2.00", "card": card(GOOD)},
            headers={"Idempotency-Key": str(uuid4())},
        )
        return said(answer) if answer.status_code != 202 or answer.json()["status"] == "COMPLETED" else "later"

    async def sign_in(self) -> str:
        return said(await self.sender.http.post("/auth/login", json=self._credentials))


def said(answer: httpx.Response) -> str:
    if answer.is_success:
        return "works"
    problem = answer.json()
    assert (answer.status_code, problem["code"]) in AWAY, problem
    assert answer.status_code != 503 or int(answer.headers["retry-after"]) >= 1
    return "503"


def check_errors(answer: Mapping[str, Any]) -> None:
    """They say what kind of errors they are."""
    assert {error["extensions"]["code"] for error in answer["errors"]} <= {code for _, code in AWAY}
