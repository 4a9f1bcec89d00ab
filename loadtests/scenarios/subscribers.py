"""GraphQL subscriptions over WebSocket.

Their records contain the received account versions, and the times from commit to arrival.
"""

import time
from contextlib import closing
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
import websocket

from loadtests.history.storage import RequestRecord, SubscriptionRecord
from loadtests.plan import Customer
from loadtests.scenarios.users import WalletUser
from wallet import cursor

_NAME: Final = "operationAdded"
_OPERATION_ADDED: Final = """subscription Feed($account: ID!, $after: String) {
  operationAdded(accountId: $account, after: $after) { cursor occurredAt }
}"""
_TIMEOUT_SECONDS: Final = 5.0
_MAX_MESSAGES: Final = 50
"""Maximum number of messages of one subscription. Then the user selects an account again."""


class Subscribers(WalletUser):
    """User that subscribes to the operations of an account. Combine with a scenario that transfers money."""

    def act(self) -> None:
        """Subscribe from the first operation on: past operations arrive first, then new ones."""
        customer = self.choices.next_customer()
        versions: list[int] = []
        latencies_ms: list[float] = []
        began, error = time.monotonic(), ""
        try:
            with closing(self._subscribe(customer)) as connection:
                while len(versions) < _MAX_MESSAGES:
                    operation = _receive_operation(connection)
                    versions.append(cursor.decode_version(operation["cursor"]))
                    committed = datetime.fromisoformat(operation["occurredAt"]).timestamp()
                    if committed > self._connected_at:  # the latency of past operations is not measured
                        latencies_ms.append(1_000 * (time.time() - committed))
        except websocket.WebSocketTimeoutException:
            pass  # the account has no new operations
        except (OSError, ValueError, websocket.WebSocketException):
            error = "UNAVAILABLE"  # the connection was refused or closed
        except LookupError as failed:
            error = str(failed)
        finally:
            subscription = SubscriptionRecord(UUID(customer.account), 0, versions, latencies_ms)
            ended = time.monotonic()
            self.writer.write(
                RequestRecord(name=_NAME, due=began, began=began, ended=ended, error=error, subscription=subscription)
            )
            self.environment.events.request.fire(
                request_type="WebSocket",
                name=_NAME,
                response_time=max(latencies_ms, default=0.0),
                response_length=len(versions),
                exception=LookupError(error) if error else None,
                context={},
            )

    def _subscribe(self, customer: Customer) -> websocket.WebSocket:
        """Open a connection, authenticate with `connection_init`, and subscribe."""
        self._connected_at = time.time()
        url = f"{self.plan.host.replace('http', 'ws', 1)}/graphql"
        connection = websocket.create_connection(url, _TIMEOUT_SECONDS, subprotocols=["graphql-transport-ws"])
        try:
            _send(connection, type="connection_init", payload={"authorization": f"Bearer {customer.token}"})
            connection.recv()  # the server sends `connection_ack`, or closes the connection
            variables = {"account": customer.account, "after": cursor.encode_version(0)}
            payload = {"query": _OPERATION_ADDED, "variables": variables}
            _send(connection, id="1", type="subscribe", payload=payload)
        except BaseException:
            connection.close()
            raise
        return connection


def _receive_operation(connection: websocket.WebSocket) -> dict[str, Any]:
    """Return the next operation.

    Raises:
        LookupError: the server sent an error or the end of the subscription.
    """
    while True:
        message = orjson.loads(connection.recv())
        if message["type"] == "ping":
            _send(connection, type="pong")
        elif message["type"] == "next" and "errors" not in message["payload"]:
            operation: dict[str, Any] = message["payload"]["data"][_NAME]
            return operation
        else:
            raise LookupError(_error_code(message))


def _error_code(message: dict[str, Any]) -> str:
    """Return the code of an error message, or the type of an unexpected message."""
    payload = message.get("payload") or {}
    errors = payload if isinstance(payload, list) else payload.get("errors")
    return str(errors[0]["extensions"]["code"]) if errors else str(message["type"])


def _send(connection: websocket.WebSocket, **message: Any) -> None:
    connection.send(orjson.dumps(message).decode())
