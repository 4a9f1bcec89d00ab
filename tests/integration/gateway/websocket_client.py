"""A client of graphql-transport-ws."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.conftest import Keys


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[ClientConnection]:
    """A connection that has said nothing yet."""
    target = f"{url.replace('http', 'ws')}/graphql"
    async with connect(target, subprotocols=["graphql-transport-ws"], proxy=None) as connection:  # type: ignore[list-item]
        yield connection


@asynccontextmanager
async def connected(url: str, keys: Keys, lifetime_seconds: float = 600) -> AsyncIterator[ClientConnection]:
    """A connection of alice's, acknowledged."""
    async with opened(url) as connection:
        payload = {"authorization": f"Bearer {keys.user('alice', lifetime_seconds=lifetime_seconds)}"}
        await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
        assert json.loads(await connection.recv())["type"] == "connection_ack"
        yield connection


async def subscribe(connection: ClientConnection, query: str | None, id_: str = "1", **more: Any) -> None:
    """Asks for an operation."""
    payload = more if query is None else {"query": query, **more}
    await connection.send(json.dumps({"id": id_, "type": "subscribe", "payload": payload}))
