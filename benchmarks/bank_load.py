"""A load generator, as lean as Python allows: `python -m benchmarks.bank_load`, spoken to by `drive.py`.

It reads a `Load` from its standard input, one line of JSON; writes `ready`; reads a `Window`; calls the bank until its
end; writes `Calls`. It ends by itself, whatever becomes of whoever started it.
"""

import asyncio
import gc
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any, Final, TypeAlias

import grpc
import orjson
import uvloop
from google.type.money_pb2 import Money

from benchmarks import http2_client, load_generator
from benchmarks.accounts import account_id
from benchmarks.http2_client import Call, CallError
from loadtests.account_selection import zipf_pairs
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc

TIMEOUT_SECONDS: Final = 30.0

_PREPARED: Final = 40_000
"""Transfers made before the start, so that what is measured is the bank."""
_ONE: Final = Money(currency_code="RUB", units=1)
_UNARY: Final = "/wallet.bank.v1.BankService/TransferMoney"

Requests: TypeAlias = Iterator[tuple[Any, Any]]
"""Headers and message of each call, as whoever calls takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a generator does.

    Attributes:
        targets: gRPC addresses of the bank's replicas, taken in turn.
        tokens: of the owners of the accounts, in the order of `accounts.owner_id`; for bulk, one of a service.
        in_flight: calls that run at any moment, spread over the targets.
        items: transfers a call; 0 for the unary call.
        skew: see `zipf_pairs`.
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


async def generate(load: Load, requests: Requests, window: Window) -> Calls:
    """Keeps calls in flight until the window's end, or until one fails."""
    keep_calling = _in_bulk if load.items else http2_client.keep_calling
    share = load.in_flight // len(load.targets)
    try:
        done = await asyncio.gather(
            *(keep_calling(target, requests, share, window.until) for target in load.targets),
        )
    except (CallError, OSError) as error:
        return tally([], window, str(error))
    return tally(list(chain(*done)), window)


async def _in_bulk(target: str, requests: Requests, in_flight: int, until: float) -> Sequence[Call]:
    """As `lean.keep_calling`, by gRPC's own client: these calls are few."""
    calls: list[Call] = []
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = bank_pb2_grpc.BankServiceStub(channel)

        async def call() -> None:
            while (began := time.monotonic()) < until:
                metadata, request = next(requests)
                try:
                    response = await stub.BatchTransferMoney(request, metadata=metadata, timeout=TIMEOUT_SECONDS)
                except grpc.aio.AioRpcError as error:
                    raise CallError(f"{error.code().name}: {error.details()}") from None
                calls.append(Call(began, time.monotonic(), _made(response)))

        await asyncio.gather(*(call() for _ in range(in_flight)))
    return calls


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


def prepare(load: Load) -> Requests:
    """Headers and message of each call, for ever: the first ones are there already."""
    made = _bulk_requests(load) if load.items else _unary_requests(load)
    return chain(list(islice(made, _PREPARED // (load.items or 1))), made)


def _unary_requests(load: Load) -> Requests:
    headers = [http2_client.header_block(load.targets[0], _UNARY, TIMEOUT_SECONDS, token) for token in load.tokens]
    for sender, request in _transfers(load):
        yield headers[sender % len(headers)], request.SerializeToString()


def _bulk_requests(load: Load) -> Requests:
    transfers = (request for _, request in _transfers(load))
    (token,) = load.tokens
    metadata = (("authorization", f"Bearer {token}"),)
    while True:
        yield metadata, bank_pb2.BatchTransferMoneyRequest(transfers=islice(transfers, load.items))


def _transfers(load: Load) -> Iterator[tuple[int, bank_pb2.TransferMoneyRequest]]:
    chance = random.Random()  # noqa: S311  chance, no secret
    ids = [account_id(number) for number in range(load.accounts)]
    for sender, recipient in zipf_pairs(chance, load.accounts, load.skew):
        yield (
            sender,
            bank_pb2.TransferMoneyRequest(
                sender_id=ids[sender],
                recipient_id=ids[recipient],
                amount=_ONE,
                idempotency_key=f"{chance.getrandbits(128):032x}",
            ),
        )


def _made(response: bank_pb2.BatchTransferMoneyResponse) -> int:
    for result in response.results:
        if not result.HasField("value"):
            raise CallError(f"a transfer in bulk was refused: {result.error.message}")
    return len(response.results)


def main() -> None:
    """One conversation with whoever started it."""
    load = Load(**orjson.loads(sys.stdin.readline()))
    requests = prepare(load)
    gc.disable()  # a short life, and a pause of its own would look like the bank's
    load_generator.answer(b"ready")
    line = sys.stdin.readline()
    if line:  # or nobody is there any more
        calls = uvloop.run(generate(load, requests, Window(**orjson.loads(line))))
        load_generator.answer(orjson.dumps(asdict(calls)))


if __name__ == "__main__":
    main()
