"""Watching an account by WebSocket, and what each saw: no gap, no repeat, and how long after the commit."""

import time
from contextlib import closing
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
import websocket

from loadtests.history.log import Feed, Line
from loadtests.plan import Customer
from loadtests.scenarios.person import Person
from wallet import cursor

_NAME: Final = "operationAdded"
_OPERATION_ADDED: Final = """subscription Feed($account: ID!, $after: String) {
  operationAdded(accountId: $account, after: $after) { cursor occurredAt }
}"""
_TIMEOUT_SECONDS: Final = 5.0
_MESSAGES: Final = 50
"""After which somebody hangs up and watches another account."""


class Subscribers(Person):
    """People who leave the app open. They see what others do, so run others beside them."""

    def act(self) -> None:
        """Watches somebody's account from its first operation on: what has been comes first, then what comes."""
        who = self.anybody()
        versions: list[int] = []
        latencies_ms: list[float] = []
        began, error = time.monotonic(), ""
        try:
            with closing(self._connected(who)) as connection:
                while len(versions) < _MESSAGES:
                    told = _next(connection)
                    versions.append(cursor.decode_version(told["cursor"]))
                    committed = datetime.fromisoformat(told["occurredAt"]).timestamp()
                    if committed > self._connected_at:  # what was there before was not waited for
                        latencies_ms.append(1_000 * (time.time() - committed))
        except websocket.WebSocketTimeoutException:
            pass  # nothing happens on this account
        except (OSError, ValueError, websocket.WebSocketException):
            error = "UNAVAILABLE"  # refused, or hung up on
        except LookupError as failed:
            error = str(failed)
        finally:
            feed = Feed(UUID(who.account), 0, versions, latencies_ms)
            ended = time.monotonic()
            self.log.write(Line(name=_NAME, due=began, began=began, ended=ended, error=error, feed=feed))
            self.environment.events.request.fire(
                request_type="WebSocket",
                name=_NAME,
                response_time=max(latencies_ms, default=0.0),
                response_length=len(versions),
                exception=LookupError(error) if error else None,
                context={},
            )

    def _connected(self, who: Customer) -> websocket.WebSocket:
        """A subscription that is accepted."""
        self._connected_at = time.time()
        url = f"{self.plan.host.replace('http', 'ws', 1)}/graphql"
        connection = websocket.create_connection(url, _TIMEOUT_SECONDS, subprotocols=["graphql-transport-ws"])
        try:
            _send(connection, type="connection_init", payload={"authorization": f"Bearer {who.token}"})
            connection.recv()  # that it is let in; otherwise it is hung up on
            variables = {"account": who.account, "after": cursor.encode_version(0)}
            payload = {"query": _OPERATION_ADDED, "variables": variables}
            _send(connection, id="1", type="subscribe", payload=payload)
        except BaseException:
            connection.close()
            raise
        return connection


def _next(connection: websocket.WebSocket) -> dict[str, Any]:
    """The next operation.

    Raises:
        LookupError: there was an error instead, or the end.
    """
    while True:
        message = orjson.loads(connection.recv())
        if message["type"] == "ping":
            _send(connection, type="pong")
        elif message["type"] == "next" and "errors" not in message["payload"]:
            told: dict[str, Any] = message["payload"]["data"][_NAME]
            return told
        else:
            raise LookupError(_why(message))


def _why(message: dict[str, Any]) -> str:
    """The code of an error, or the type of what was not expected."""
    payload = message.get("payload") or {}
    errors = payload if isinstance(payload, list) else payload.get("errors")
    return str(errors[0]["extensions"]["code"]) if errors else str(message["type"])


def _send(connection: websocket.WebSocket, **message: Any) -> None:
    connection.send(orjson.dumps(message).decode())
