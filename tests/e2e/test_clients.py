"""Clients that others wrote: they follow an account over the whole system, through a gateway that is killed or stopped.

What they connect with again is theirs to know; what they ask for then is the last cursor that they saw.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from gql import Client, gql
from gql.transport.exceptions import TransportConnectionFailed
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport

from stack.system import System
from tests import node
from tests.e2e.feeds import OPERATION_ADDED
from tests.e2e.users import User, transfer_until_known

pytestmark = pytest.mark.slow

BEGINNING = "djA"
"""The cursor before an account's first operation."""
WITHIN = 20.0
"""Seconds for a gateway to come back, and for whoever lost it to notice."""

npm = pytest.mark.parametrize("client", ["graphql-ws", "graphql-sse"])


class Follower:
    """One of npm's clients, subscribed to an account's operations."""

    def __init__(self, output: asyncio.StreamReader) -> None:
        self._output = output
        self.told: list[dict[str, Any]] = []

    async def sees(self, count: int) -> list[str]:
        """The amounts of so many operations from the first on."""
        async with asyncio.timeout(WITHIN):
            while len(self.all("operation")) < count:
                line = await self._output.readline()
                assert line, f"it ended: {self.told}"
                self.told.append(json.loads(line))
        return [operation["amount"]["amount"] for operation in self.all("operation")]

    def all(self, what: str) -> list[Any]:
        """What it told of one kind."""
        return [each[what] for each in self.told if what in each]


def graph_of(user: User) -> str:
    """Where the user's gateway has the graph."""
    return f"{user.http.base_url}".rstrip("/") + "/graphql"


@asynccontextmanager
async def following(client: str, user: User, after: str | None = BEGINNING) -> AsyncIterator[Follower]:
    """A client that follows the user's account, gone afterwards."""
    order = {
        "client": client,
        "url": graph_of(user),
        "token": user.token,
        "payload": {"query": OPERATION_ADDED, "variables": {"account": user.account, "after": after}},
    }
    process = await asyncio.create_subprocess_exec(
        *node.command("follow.mjs", by=client), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(order).encode())
        process.stdin.close()
        yield Follower(process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@npm
class TestNpm:
    async def test_follows_what_happens(self, alice: User, bob: User, client: str) -> None:
        await alice.transfer(bob.account, "1.00")
        async with following(client, bob) as follower:
            assert await follower.sees(1) == ["1.00"]
            await alice.transfer(bob.account, "2.00")
            assert await follower.sees(2) == ["1.00", "2.00"]
        assert follower.all("connected") == ["first"]

    async def test_goes_on_without_gap_or_repeat_when_the_gateway_is_killed(
        self, system: System, alice: User, bob: User, client: str
    ) -> None:
        async with following(client, bob) as follower:
            for amount in ("1.00", "2.00"):
                await alice.transfer(bob.account, amount)
            await follower.sees(2)
            os.kill(system.pid("gateway"), signal.SIGKILL)
            for amount in ("3.00", "4.00"):
                await transfer_until_known(alice, bob.account, amount)
            assert await follower.sees(4) == ["1.00", "2.00", "3.00", "4.00"]
            await alice.transfer(bob.account, "5.00")
            assert await follower.sees(5) == ["1.00", "2.00", "3.00", "4.00", "5.00"]
        assert follower.all("connected") == ["first", "again"]
        assert follower.all("error") == []

    async def test_goes_on_when_the_gateway_is_stopped_in_order(
        self, system: System, alice: User, bob: User, client: str
    ) -> None:
        async with following(client, bob) as follower:
            await alice.transfer(bob.account, "1.00")
            await follower.sees(1)
            await system.supervisor.stop_process("gateway")
            await system.supervisor.start_process("gateway")
            await transfer_until_known(alice, bob.account, "2.00")
            assert await follower.sees(2) == ["1.00", "2.00"]
        assert follower.all("connected") == ["first", "again"]
        assert follower.all("error") == []
        closed = [code for code in follower.all("closed") if code != 1006]  # nobody was there yet
        assert closed == ([1012] if client == "graphql-ws" else [])


async def followed_by_gql(user: User, after: str) -> AsyncGenerator[str, None]:
    """What the user's operations amount to, by gql's client; on from the last cursor when its connection is lost."""
    while True:
        transport = WebsocketsTransport(
            url=graph_of(user).replace("http", "ws"),
            init_payload={"authorization": f"Bearer {user.token}"},
            subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        )
        subscription = gql(OPERATION_ADDED)
        subscription.variable_values = {"account": user.account, "after": after}
        try:
            async with (
                Client(transport=transport) as session,
                aclosing(session.subscribe(subscription)) as answers,
            ):
                async for answer in answers:
                    operation = answer["operationAdded"]
                    after = operation["cursor"]
                    yield operation["amount"]["amount"]
        except TransportConnectionFailed:
            await asyncio.sleep(0.1)


class TestGql:
    async def test_asks_and_orders(self, alice: User, bob: User) -> None:
        transport = HTTPXAsyncTransport(url=graph_of(alice), headers={"Authorization": f"Bearer {alice.token}"})
        order = {"senderId": alice.account, "recipientId": bob.account, "amount": "1", "idempotencyKey": "k"}
        transfer = gql("""
            mutation($input: TransferMoneyInput!) {
              transferMoney(input: $input) { ... on TransferMoneySuccess { balance { amount } } }
            }
        """)
        transfer.variable_values = {"input": order}
        balance = gql("query($id: ID!) { account(id: $id) { balance { amount } } }")
        balance.variable_values = {"id": alice.account}
        # Against the schema that the graph tells of itself.
        async with Client(transport=transport, fetch_schema_from_transport=True) as session:
            made, asked = await session.execute(transfer), await session.execute(balance)
        assert made == {"transferMoney": {"balance": {"amount": "999.00"}}}
        assert asked == {"account": {"balance": {"amount": "999.00"}}}

    async def test_goes_on_without_gap_or_repeat_when_the_gateway_is_killed(
        self, system: System, alice: User, bob: User
    ) -> None:
        await alice.transfer(bob.account, "1.00")
        async with asyncio.timeout(2 * WITHIN), aclosing(followed_by_gql(bob, BEGINNING)) as amounts:
            seen = [await anext(amounts)]
            os.kill(system.pid("gateway"), signal.SIGKILL)
            for amount in ("2.00", "3.00"):
                await transfer_until_known(alice, bob.account, amount)
            seen += [await anext(amounts) for _ in range(2)]
        assert seen == ["1.00", "2.00", "3.00"]
