"""Client of the WebSocket protocol graphql-transport-ws."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.conftest import Keys


@asynccontextmanager
async def open_websocket(url: str, headers: Sequence[tuple[str, str]] = ()) -> AsyncIterator[ClientConnection]:
    """Open a connection without sending `connection_init`.

    Args:
        url: URL of the gateway.
        headers: further headers of the upgrade request.
    """
    # By default, the client stops reading after 16 unread messages. Then it does not respond to a close frame.
    target = f"{url.replace('http', 'ws')}/graphql"
    async with connect(
        target,
        subprotocols=["graphql-transport-ws"],  # type: ignore[list-item]
        additional_headers=headers,
        proxy=None,
        max_queue=None,
    ) as connection:
        yield connection


@asynccontextmanager
async def connect_as_alice(url: str, keys: Keys, lifetime_seconds: float = 600) -> AsyncIterator[ClientConnection]:
    """Open a connection with a token of alice and wait for its acknowledgement."""
    async with open_websocket(url) as connection:
        payload = {"authorization": f"Bearer {keys.user('alice', lifetime_seconds=lifetime_seconds)}"}
        await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
        assert json.loads(await connection.recv())["type"] == "connection_ack"
        yield connection


async def subscribe(connection: ClientConnection, query: str | None, id_: str = "1", **more: Any) -> None:
    """Send an operation. `query=None` sends the other fields only."""
    payload = more if query is None else {"query": query, **more}
    await connection.send(json.dumps({"id": id_, "type": "subscribe", "payload": payload}))
