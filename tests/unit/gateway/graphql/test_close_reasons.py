"""Every reason with which Strawberry closes a WebSocket has one of ours."""

import ast
import inspect
from collections.abc import Iterator

from strawberry.http import async_base_view
from strawberry.subscriptions.protocols.graphql_transport_ws import handlers

from gateway.graphql.transport.close_reasons import REASONS

PREVENTED = {"Subscriber for ", "Unknown message type: "}
"""Beginnings of reasons that quote the client. The gateway's handler checks the id and the type before."""


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
