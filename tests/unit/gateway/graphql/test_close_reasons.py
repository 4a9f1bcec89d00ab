"""The gateway replaces Strawberry's close reasons of WebSockets.

Each message that is sent to a lost client raises the same error, `WebSocketDisconnected`.
"""

import ast
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.http import async_base_view
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws import handlers

from gateway.graphql.transport.close_reasons import REASONS
from gateway.graphql.transport.websocket_adapter import WebSocketAdapter
from kit.runtime.fair_limit import FairLimit

PREVENTED = {"Subscriber for ", "Unknown message type: "}
"""Prefixes of reasons that quote the client. They are never sent: the gateway's handler checks id and type first."""


def reasons(source: str) -> Iterator[str]:
    """Yield the texts that a module passes to `close` and `handle_invalid_message`, directly or in a variable."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in {"reason", "error_message"}:
            yield from _texts(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".close", ".handle_invalid_message")):
            for argument in (*node.args, *(each.value for each in node.keywords)):
                yield from _texts(argument)


def _texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        node = node.values[0]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def test_every_reason_of_strawberry_is_replaced() -> None:
    found = {each for module in (handlers, async_base_view) for each in reasons(inspect.getsource(module))}
    assert found == REASONS.keys() | PREVENTED


def test_reasons_fit_into_a_close_frame() -> None:
    assert max(len(each.encode()) for each in REASONS.values()) <= 123


class Connection:
    """Fake connection of a WebSocket. Sending fails if `is_lost` is set."""

    def __init__(self) -> None:
        self.is_lost = False
        self.sent: list[str] = []

    async def receive(self) -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(self, message: Any) -> None:
        if self.is_lost:
            raise OSError
        self.sent.append(message["type"])

    async def accept(self) -> WebSocketAdapter:
        websocket = WebSocket({"type": "websocket"}, self.receive, self.send)
        await websocket.accept()
        return WebSocketAdapter(GraphQL(None), websocket, websocket, bodies=FairLimit(1))  # type: ignore[arg-type]  # needs no schema here


async def test_closed_websocket_sends_nothing_and_closes_once() -> None:
    connection = Connection()
    websocket = await connection.accept()
    await websocket.close(4400, "reason")
    await websocket.close(4403, "reason")
    with pytest.raises(WebSocketDisconnected):
        await websocket.send_json({})
    assert connection.sent == ["websocket.accept", "websocket.close"]


async def test_websocket_of_a_lost_client_raises_the_same_error_for_each_message() -> None:
    connection = Connection()
    websocket = await connection.accept()
    connection.is_lost = True
    for _ in range(2):
        with pytest.raises(WebSocketDisconnected):
            await websocket.send_json({})
    await websocket.close(4400, "reason")


async def test_closing_the_websocket_of_a_lost_client_raises_no_error() -> None:
    connection = Connection()
    websocket = await connection.accept()
    connection.is_lost = True
    await websocket.close(4400, "reason")
