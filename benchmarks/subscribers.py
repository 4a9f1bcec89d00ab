"""People who watch their accounts: `python -m benchmarks.subscribers`, spoken to by `live.py`.

It reads a `Crowd` from its standard input, one line of JSON; subscribes everybody and writes `ready`; reads a `Goal`;
writes `Seen` when everybody has seen that many operations, or when the time is up.
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

from benchmarks import load_generator

_PROTOCOL: Final = Subprotocol("graphql-transport-ws")
_AT_ONCE: Final = 50
_QUERY: Final = """subscription($account: ID!, $after: String!) {
  operationAdded(accountId: $account, after: $after) { occurredAt cursor }
}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Who watches what.

    Attributes:
        url: of the gateway's GraphQL, by WebSocket.
        token: of the owner of all the accounts.
        accounts: one for each subscriber; several may watch the same.
        after: the cursor that each of them begins after.
    """

    url: str
    token: str
    accounts: Sequence[str]
    after: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """How many operations the subscribers are to see in all, and how long they wait for them."""

    operations: int
    seconds: float


@dataclass(slots=True, kw_only=True)
class Seen:
    """What came of it.

    Attributes:
        latencies_ms: of each message, from the time that the ledger gave the operation.
        repeats: messages that a subscriber had got before, or out of order.
        error: what ended a subscription, or empty.
    """

    latencies_ms: list[float] = field(default_factory=list)
    repeats: int = 0
    error: str = ""


async def watch(crowd: Crowd, seen: Seen, changed: asyncio.Event) -> None:
    """Reads the goal when everybody is there, and returns when it is reached or the time is up."""
    room = asyncio.Semaphore(_AT_ONCE)
    present = asyncio.Semaphore(0)

    async def subscribe(account: str, after: str) -> None:
        async with room:
            connection = await connect(crowd.url, subprotocols=[_PROTOCOL], compression=None, open_timeout=60)
            await _begin(connection, crowd.token, account, after)
        present.release()
        with suppress(asyncio.CancelledError):
            await _follow(connection, seen, changed)
        await connection.close()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(subscribe(*each)) for each in zip(crowd.accounts, crowd.after, strict=True)]
        for _ in tasks:
            await present.acquire()
        load_generator.answer(b"ready")
        goal = Goal(**orjson.loads(await asyncio.to_thread(sys.stdin.readline)))
        with suppress(TimeoutError):
            async with asyncio.timeout(goal.seconds):
                while len(seen.latencies_ms) < goal.operations and not seen.error:
                    changed.clear()
                    await changed.wait()
        for task in tasks:
            task.cancel()


async def _begin(connection: ClientConnection, token: str, account: str, after: str) -> None:
    await _tell(connection, type="connection_init", payload={"authorization": f"Bearer {token}"})
    acknowledged = orjson.loads(await connection.recv())
    if acknowledged["type"] != "connection_ack":
        raise ConnectionError(f"not let in: {acknowledged}")
    variables = {"account": account, "after": after}
    await _tell(connection, id="1", type="subscribe", payload={"query": _QUERY, "variables": variables})


async def _follow(connection: ClientConnection, seen: Seen, changed: asyncio.Event) -> None:
    """Times every message. A subscription that ends before it is told to has failed."""
    cursors = set[str]()
    try:
        async for text in connection:
            now = time.time()
            message = orjson.loads(text)
            if message["type"] == "ping":
                await _tell(connection, type="pong")
                continue
            if message["type"] != "next" or message["payload"].get("errors"):
                seen.error = f"{message}"
                break
            operation = message["payload"]["data"]["operationAdded"]
            seen.latencies_ms.append(1_000 * (now - datetime.fromisoformat(operation["occurredAt"]).timestamp()))
            seen.repeats += operation["cursor"] in cursors
            cursors.add(operation["cursor"])
            changed.set()
        else:
            seen.error = f"the gateway closed the connection: {connection.close_code} {connection.close_reason}"
    except WebSocketException as error:
        seen.error = f"{type(error).__name__}: {error}"
    changed.set()


async def _tell(connection: ClientConnection, **message: Any) -> None:
    await connection.send(orjson.dumps(message).decode())


def main() -> None:
    """One conversation with whoever started it."""
    crowd = Crowd(**orjson.loads(sys.stdin.readline()))
    seen = Seen()
    gc.disable()  # a short life, and a pause of its own would look like the gateway's
    uvloop.run(watch(crowd, seen, asyncio.Event()))
    load_generator.answer(orjson.dumps(asdict(seen)))


if __name__ == "__main__":
    main()
