"""Public GraphQL clients follow an account while the gateway is killed or stopped.

The npm clients reconnect on their own; `follow_with_gql` reconnects the Python client. All of them resume from the last
cursor that they received.
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
RECONNECT_SECONDS = 20.0
"""Seconds for the gateway to restart and for the client to reconnect."""

npm = pytest.mark.parametrize("client", ["graphql-ws", "graphql-ws-5", "graphql-sse"])
"""The npm packages of the clients. Version 5 of graphql-ws reads messages more strictly than the next version."""


class NpmClient:
    """Client from npm in a child process, subscribed to an account's operations."""

    def __init__(self, output: asyncio.StreamReader) -> None:
        self._output = output
        self.messages: list[dict[str, Any]] = []

    async def wait_for_amounts(self, count: int) -> list[str]:
        """Wait for `count` operations and return their amounts."""
        async with asyncio.timeout(RECONNECT_SECONDS):
            while len(self.values("operation")) < count:
                line = await self._output.readline()
                assert line, f"the client ended: {self.messages}"
                self.messages.append(json.loads(line))
        return [operation["amount"]["amount"] for operation in self.values("operation")]

    def values(self, kind: str) -> list[Any]:
        """Return the messages of one kind."""
        return [each[kind] for each in self.messages if kind in each]


def graphql_url(user: User) -> str:
    """Return the GraphQL address of the user's gateway."""
    return f"{user.http.base_url}".rstrip("/") + "/graphql"


@asynccontextmanager
async def run_client(client: str, user: User, after: str | None = BEGINNING) -> AsyncIterator[NpmClient]:
    """Run a client that follows the user's account during the block."""
    options = {
        "client": client,
        "url": graphql_url(user),
        "token": user.token,
        "payload": {"query": OPERATION_ADDED, "variables": {"account": user.account, "after": after}},
    }
    process = await asyncio.create_subprocess_exec(
        *node.script_command("follow.mjs", package=client),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(options).encode())
        process.stdin.close()
        yield NpmClient(process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@npm
class TestNpm:
    async def test_npm_client_receives_operations(self, alice: User, bob: User, client: str) -> None:
        await alice.transfer(bob.account, "1.00")
        async with run_client(client, bob) as follower:
            assert await follower.wait_for_amounts(1) == ["1.00"]
            await alice.transfer(bob.account, "2.00")
            assert await follower.wait_for_amounts(2) == ["1.00", "2.00"]
        assert follower.values("connected") == ["first"]

    async def test_npm_client_resumes_without_gap_after_a_kill(
        self, system: System, alice: User, bob: User, client: str
    ) -> None:
        async with run_client(client, bob) as follower:
            for amount in ("1.00", "2.00"):
                await alice.transfer(bob.account, amount)
            await follower.wait_for_amounts(2)
            os.kill(system.pid("gateway"), signal.SIGKILL)
            for amount in ("3.00", "4.00"):
                await transfer_until_known(alice, bob.account, amount)
            assert await follower.wait_for_amounts(4) == ["1.00", "2.00", "3.00", "4.00"]
            await alice.transfer(bob.account, "5.00")
            assert await follower.wait_for_amounts(5) == ["1.00", "2.00", "3.00", "4.00", "5.00"]
        assert follower.values("connected") == ["first", "again"]
        assert follower.values("error") == []

    async def test_npm_client_resumes_after_a_graceful_stop(
        self, system: System, alice: User, bob: User, client: str
    ) -> None:
        async with run_client(client, bob) as follower:
            await alice.transfer(bob.account, "1.00")
            await follower.wait_for_amounts(1)
            await system.supervisor.stop_process("gateway")
            await system.supervisor.start_process("gateway")
            await transfer_until_known(alice, bob.account, "2.00")
            assert await follower.wait_for_amounts(2) == ["1.00", "2.00"]
        assert follower.values("connected") == ["first", "again"]
        assert follower.values("error") == []
        closed = [code for code in follower.values("closed") if code != 1006]  # 1006: the gateway was not running yet
        assert closed == ([] if client == "graphql-sse" else [1012])


async def test_apollo_and_urql_fall_back_to_queries_and_apollo_subscribes_over_http(alice: User, bob: User) -> None:
    for amount in ("1.00", "2.00"):
        await alice.transfer(bob.account, amount)
    request = json.dumps({"url": graphql_url(alice), "token": alice.token, "account": alice.account})
    results = await asyncio.to_thread(node.run_script, "clients.mjs", package="@apollo/client", stdin=request)
    assert results == {"apollo": "997.00", "urql": "997.00", "multipart": ["1.00", "2.00"]}


async def follow_with_gql(user: User, after: str) -> AsyncGenerator[str, None]:
    """Yield the amounts of the user's operations with gql's client; resume from the last cursor after a disconnect."""
    while True:
        transport = WebsocketsTransport(
            url=graphql_url(user).replace("http", "ws"),
            init_payload={"authorization": f"Bearer {user.token}"},
            subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        )
        subscription = gql(OPERATION_ADDED)
        subscription.variable_values = {"account": user.account, "after": after}
        try:
            async with (
                Client(transport=transport) as session,
                aclosing(session.subscribe(subscription)) as responses,
            ):
                async for response in responses:
                    operation = response["operationAdded"]
                    after = operation["cursor"]
                    yield operation["amount"]["amount"]
        except TransportConnectionFailed:
            await asyncio.sleep(0.1)


class TestGql:
    async def test_gql_client_queries_and_mutates(self, alice: User, bob: User) -> None:
        transport = HTTPXAsyncTransport(url=graphql_url(alice), headers={"Authorization": f"Bearer {alice.token}"})
        order = {"senderId": alice.account, "recipientId": bob.account, "amount": "1", "idempotencyKey": "k"}
        transfer = gql("""
            mutation($input: TransferMoneyInput!) {
              transferMoney(input: $input) { ... on TransferMoneySuccess { balance { amount } } }
            }
        """)
        transfer.variable_values = {"input": order}
        balance = gql("query($id: ID!) { account(id: $id) { balance { amount } } }")
        balance.variable_values = {"id": alice.account}
        # The client validates the documents against the introspected schema.
        async with Client(transport=transport, fetch_schema_from_transport=True) as session:
            transferred, account = await session.execute(transfer), await session.execute(balance)
        assert transferred == {"transferMoney": {"balance": {"amount": "999.00"}}}
        assert account == {"account": {"balance": {"amount": "999.00"}}}

    async def test_gql_client_resumes_without_gap_after_a_kill(self, system: System, alice: User, bob: User) -> None:
        await alice.transfer(bob.account, "1.00")
        async with asyncio.timeout(2 * RECONNECT_SECONDS), aclosing(follow_with_gql(bob, BEGINNING)) as amounts:
            received = [await anext(amounts)]
            os.kill(system.pid("gateway"), signal.SIGKILL)
            for amount in ("2.00", "3.00"):
                await transfer_until_known(alice, bob.account, amount)
            received += [await anext(amounts) for _ in range(2)]
        assert received == ["1.00", "2.00", "3.00"]
