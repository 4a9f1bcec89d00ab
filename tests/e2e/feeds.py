"""Subscriptions of a user over the graphql-transport-ws protocol."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.e2e.users import User

OPERATION_ADDED = """
    subscription($account: ID!, $after: String) {
      operationAdded(accountId: $account, after: $after) {
        direction amount { amount } balanceAfter { amount } counterparty { id } cursor
      }
    }
"""


BALANCE_CHANGED = """
    subscription($account: ID!) { balanceChanged(accountId: $account) { balance { amount currency } cursor } }
"""


@asynccontextmanager
async def websocket(user: User, **params: Any) -> AsyncIterator[ClientConnection]:
    """Open an acknowledged graphql-transport-ws connection of the user."""
    url = f"{user.http.base_url}".replace("http", "ws").rstrip("/") + "/graphql"
    async with connected(url, user.token, params) as connection:
        yield connection


@asynccontextmanager
async def connected(
    url: str, token: str, params: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[ClientConnection]:
    """Open an acknowledged connection to any gateway, with connection options."""
    async with connect(url, subprotocols=["graphql-transport-ws"], **options) as connection:  # type: ignore[list-item]
        payload = {"authorization": f"Bearer {token}"} | (params or {})
        await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
        assert json.loads(await connection.recv())["type"] == "connection_ack"
        yield connection


async def subscribe(connection: ClientConnection, query: str, **variables: Any) -> AsyncIterator[dict[str, Any]]:
    """Yield the payloads of a subscription; raise its errors."""
    payload = {"query": query, "variables": variables}
    await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
    async for text in connection:
        message = json.loads(text)
        if message["type"] == "complete":
            return
        if message["type"] == "error":
            raise LookupError(message["payload"])
        if errors := message["payload"].get("errors"):
            raise LookupError(errors)
        yield message["payload"]["data"]


async def next_value(feed: AsyncIterator[dict[str, Any]], field: str) -> dict[str, Any]:
    data = await asyncio.wait_for(anext(feed), 5)
    value: dict[str, Any] = data[field]
    return value
