"""GraphQL subscribers over WebSocket: `python -m benchmarks.subscribers`, run by `load_generator.start_generator`.

The process reads a `SubscribeCommand` from standard input, as one line of JSON, starts all subscriptions and writes
`ready`. Then it reads a `SubscriptionTarget`, waits for that number of messages or for the time-out, and writes a
`SubscriptionResult`.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from benchmarks.load_generator import write_line

_PROTOCOL: Final = Subprotocol("graphql-transport-ws")
_CONCURRENT_CONNECTS: Final = 50
_QUERY: Final = """subscription($account: ID!, $after: String!) {
  operationAdded(accountId: $account, after: $after) { occurredAt cursor }
}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeCommand:
    """Subscriptions to start, one per entry of `accounts`.

    Attributes:
        url: WebSocket URL of the gateway's GraphQL endpoint.
        token: bearer token that may read all the accounts.
        accounts: account ids; several subscribers may use the same account.
        after: cursor after which each subscriber starts.
    """

    url: str
    token: str
    accounts: Sequence[str]
    after: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionTarget:
    """Number of messages to wait for, over all subscribers, and the time-out."""

    messages: int
    timeout_seconds: float


@dataclass(slots=True, kw_only=True)
class SubscriptionResult:
    """Measurements of all subscribers.

    Attributes:
        latencies_ms: latency of each message, from `occurredAt` of its operation to its receipt.
        repeats: number of messages that their subscriber had received before.
        error: failure that ended a subscription, or empty.
    """

    latencies_ms: list[float] = field(default_factory=list)
    repeats: int = 0
    error: str = ""


async def subscribe_all(command: SubscribeCommand, result: SubscriptionResult) -> None:
    """Start all subscriptions, read the target, and collect messages until its number or its time-out is reached."""
    connect_slots = asyncio.Semaphore(_CONCURRENT_CONNECTS)
    subscribed = asyncio.Semaphore(0)
    result_changed = asyncio.Event()

    async def subscribe(account: str, after: str) -> None:
        async with connect_slots:
            connection = await connect(command.url, subprotocols=[_PROTOCOL], compression=None, open_timeout=60)
            await _start_subscription(connection, command.token, account, after)
        subscribed.release()
        with suppress(asyncio.CancelledError):
            await _collect_messages(connection, result, result_changed)
        await connection.close()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(subscribe(*each)) for each in zip(command.accounts, command.after, strict=True)]
        for _ in tasks:
            await subscribed.acquire()
        write_line(b"ready")
        target = SubscriptionTarget(**orjson.loads(await asyncio.to_thread(sys.stdin.readline)))
        with suppress(TimeoutError):
            async with asyncio.timeout(target.timeout_seconds):
                while len(result.latencies_ms) < target.messages and not result.error:
                    result_changed.clear()
                    await result_changed.wait()
        for task in tasks:
            task.cancel()


async def _start_subscription(connection: ClientConnection, token: str, account: str, after: str) -> None:
    await _send(connection, type="connection_init", payload={"authorization": f"Bearer {token}"})
    answer = orjson.loads(await connection.recv())
    if answer["type"] != "connection_ack":
        raise ConnectionError(f"the gateway refused the connection: {answer}")
    variables = {"account": account, "after": after}
    await _send(connection, id="1", type="subscribe", payload={"query": _QUERY, "variables": variables})


async def _collect_messages(
    connection: ClientConnection, result: SubscriptionResult, result_changed: asyncio.Event
) -> None:
    """Add the latency of every message to the result. A subscription that the gateway ends is an error."""
    cursors = set[str]()
    try:
        async for text in connection:
            now = time.time()
            message = orjson.loads(text)
            if message["type"] == "ping":
                await _send(connection, type="pong")
                continue
            if message["type"] != "next" or message["payload"].get("errors"):
                result.error = f"{message}"
                break
            operation = message["payload"]["data"]["operationAdded"]
            result.latencies_ms.append(1_000 * (now - datetime.fromisoformat(operation["occurredAt"]).timestamp()))
            result.repeats += operation["cursor"] in cursors
            cursors.add(operation["cursor"])
            result_changed.set()
        else:
            result.error = f"the gateway closed the connection: {connection.close_code} {connection.close_reason}"
    except WebSocketException as error:
        result.error = f"{type(error).__name__}: {error}"
    result_changed.set()


async def _send(connection: ClientConnection, **message: Any) -> None:
    await connection.send(orjson.dumps(message).decode())


def main() -> None:
    """Read the command from standard input and write the result."""
    command = SubscribeCommand(**orjson.loads(sys.stdin.readline()))
    result = SubscriptionResult()
    gc.disable()  # a pause for garbage collection would look like a slow gateway; the process is short-lived
    uvloop.run(subscribe_all(command, result))
    write_line(orjson.dumps(asdict(result)))


if __name__ == "__main__":
    main()
