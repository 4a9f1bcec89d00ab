"""A load generator, as lean as Python allows: `python -m loadtests.bench.load`, spoken to by `drive.py`.

It reads a `Load` from its standard input, one line of JSON; writes `ready`; reads a `Window`; calls the bank until its
end; writes `Calls`. It ends by itself, whatever becomes of whoever started it.
"""

import asyncio
import gc
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from itertools import chain, cycle, islice
from typing import Any, Final

import grpc
import orjson
import uvloop
from google.type.money_pb2 import Money

from loadtests.bench.accounts import account_id, pairs
from protos.bank.v1 import bank_pb2, bank_pb2_grpc

TIMEOUT_SECONDS: Final = 60.0

_PREPARED: Final = 40_000
"""Transfers made before the start, so that what is measured is the bank."""
_ONE: Final = Money(currency_code="RUB", units=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a generator does.

    Attributes:
        targets: gRPC addresses of the bank's replicas, taken in turn.
        tokens: of the owners of the accounts, in the order of `accounts.owner_id`; or one, of a service.
        in_flight: calls that run at any moment.
        items: transfers a call; 0 for the unary call.
        skew: see `accounts.pairs`.
    """

    targets: Sequence[str]
    tokens: Sequence[str]
    accounts: int
    in_flight: int
    items: int = 0
    skew: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When calls count, on the monotonic clock, which is the whole machine's. From `until` on none begins."""

    since: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """What came of it.

    Attributes:
        acknowledged: every transfer that was made, whenever.
        transfers: those of the window; a call that is partly in it counts in proportion, so that long calls count
            right, too.
        latencies_ms: of the calls that ended in the window.
        error: what ended it, or empty.
    """

    acknowledged: int
    transfers: float
    latencies_ms: Sequence[float]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: when, on the monotonic clock, and how many transfers it made."""

    began: float
    ended: float
    transfers: int


class _RefusedError(Exception):
    """A transfer in bulk was refused, which none of these may be."""


async def generate(load: Load, requests: Iterator[tuple[Any, Any]], window: Window) -> Calls:
    """Keeps calls in flight until the window's end, or until one fails."""
    calls: list[Call] = []
    error = ""
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(target)) for target in load.targets]
        stubs: list[Any] = [bank_pb2_grpc.BankServiceStub(channel) for channel in channels]
        methods = [stub.BatchTransferMoney if load.items else stub.TransferMoney for stub in stubs]

        async def call(method: Any) -> None:
            while (began := time.monotonic()) < window.until:
                metadata, request = next(requests)
                response = await method(request, metadata=metadata, timeout=TIMEOUT_SECONDS)
                transfers = _made(response) if load.items else 1
                calls.append(Call(began, time.monotonic(), transfers))

        try:
            async with asyncio.TaskGroup() as group:
                for method in islice(cycle(methods), load.in_flight):
                    group.create_task(call(method))
        except* grpc.aio.AioRpcError as errors:
            first = errors.exceptions[0]
            error = f"{first.code().name}: {first.details()}" if isinstance(first, grpc.aio.AioRpcError) else str(first)
        except* _RefusedError as errors:
            error = str(errors.exceptions[0])
    return tally(calls, window, error)


def tally(calls: Sequence[Call], window: Window, error: str = "") -> Calls:
    """What the calls amount to."""
    return Calls(
        acknowledged=sum(call.transfers for call in calls),
        transfers=sum(
            call.transfers
            * max(0.0, min(call.ended, window.until) - max(call.began, window.since))
            / (call.ended - call.began)
            for call in calls
        ),
        latencies_ms=[
            round((call.ended - call.began) * 1_000, 3) for call in calls if window.since <= call.ended <= window.until
        ],
        error=error,
    )


def _requests(load: Load) -> Iterator[tuple[Any, Any]]:
    """Metadata and message of each call, for ever: the first ones are there already."""
    chance = random.Random()  # noqa: S311  chance, no secret
    metadata = [(("authorization", f"Bearer {token}"),) for token in load.tokens]
    ids = [account_id(number) for number in range(load.accounts)]

    def transfers() -> Iterator[tuple[Any, Any]]:
        for sender, recipient in pairs(chance, load.accounts, load.skew):
            request = bank_pb2.TransferMoneyRequest(
                sender_id=ids[sender],
                recipient_id=ids[recipient],
                amount=_ONE,
                idempotency_key=f"{chance.getrandbits(128):032x}",
            )
            yield metadata[sender % len(metadata)], request

    def bulks() -> Iterator[tuple[Any, Any]]:
        each = transfers()
        while True:
            items = [request for _, request in islice(each, load.items)]
            yield metadata[0], bank_pb2.BatchTransferMoneyRequest(transfers=items)

    made = bulks() if load.items else transfers()
    return chain(list(islice(made, _PREPARED // (load.items or 1))), made)


def _made(response: bank_pb2.BatchTransferMoneyResponse) -> int:
    for result in response.results:
        if not result.HasField("value"):
            raise _RefusedError(f"a transfer in bulk was refused: {result.error.message}")
    return len(response.results)


def main() -> None:
    """One conversation with whoever started it."""
    load = Load(**orjson.loads(sys.stdin.readline()))
    requests = _requests(load)
    gc.disable()  # a short life, and a pause of its own would look like the bank's
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    line = sys.stdin.readline()
    if line:  # or nobody is there any more
        calls = uvloop.run(generate(load, requests, Window(**orjson.loads(line))))
        sys.stdout.write(orjson.dumps(asdict(calls)).decode() + "\n")


if __name__ == "__main__":
    main()
