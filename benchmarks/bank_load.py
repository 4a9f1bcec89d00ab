"""Load generator of transfers over gRPC: `python -m benchmarks.bank_load`, run by `load_generator.start_generator`."""

import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final, TypeAlias

import grpc
import orjson
from google.type.money_pb2 import Money

from benchmarks import http2_client
from benchmarks.accounts import account_id
from benchmarks.load_generator import Call, CallError, LoadWindow, run_generator
from loadtests.account_selection import zipf_pairs
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc

TIMEOUT_SECONDS: Final = 30.0

_PREPARED_TRANSFERS: Final = 40_000
"""Transfers whose requests are built before the run, because the generator shares the processors with the bank."""
_AMOUNT: Final = Money(currency_code="RUB", units=1)
_METHOD: Final = "/wallet.bank.v1.BankService/TransferMoney"

Requests: TypeAlias = Iterator[tuple[Any, Any]]
"""Headers and message of each call, in the form that `http2_client` (single calls) or grpc.aio (bulk calls) expects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BankLoad:
    """Load of transfers.

    Attributes:
        targets: gRPC targets of the bank's replicas; each gets an equal share of the calls.
        tokens: one token per owner, in the order of `accounts.owner_id`; for bulk calls only an administrator's token.
        accounts: number of accounts.
        in_flight: total number of concurrent calls to all targets.
        items: transfers per call of `BatchTransferMoney`; 0 for calls of `TransferMoney`.
        skew: exponent of the Zipf distribution of accounts; see `zipf_pairs`.
    """

    targets: Sequence[str]
    tokens: Sequence[str]
    accounts: int
    in_flight: int
    items: int = 0
    skew: float = 0.0


def prepare_requests(load: BankLoad) -> Requests:
    """Return headers and message of each call, without end.

    The requests of the first `_PREPARED_TRANSFERS` transfers are built in advance.
    """
    requests = _bulk_requests(load) if load.items else _unary_requests(load)
    return chain(list(islice(requests, _PREPARED_TRANSFERS // (load.items or 1))), requests)


async def call_bank(load: BankLoad, requests: Requests, deadline: float) -> Sequence[Call]:
    """Keep calls to all targets in flight until the deadline.

    Raises:
        CallError: a call failed.
        OSError: a connection could not be opened.
    """
    call_repeatedly = _call_bulk_repeatedly if load.items else http2_client.call_repeatedly
    share = load.in_flight // len(load.targets)
    calls = await asyncio.gather(*(call_repeatedly(target, requests, share, deadline) for target in load.targets))
    return list(chain(*calls))


async def _call_bulk_repeatedly(target: str, requests: Requests, in_flight: int, deadline: float) -> Sequence[Call]:
    """Keep bulk calls in flight until the deadline, like `http2_client.call_repeatedly` for single calls.

    The client is grpc.aio's: its processor time per call matters little for few large calls.
    """
    calls: list[Call] = []
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = bank_pb2_grpc.BankServiceStub(channel)

        async def call() -> None:
            while (started := time.monotonic()) < deadline:
                metadata, request = next(requests)
                try:
                    response = await stub.BatchTransferMoney(request, metadata=metadata, timeout=TIMEOUT_SECONDS)
                except grpc.aio.AioRpcError as error:
                    raise CallError(f"{error.code().name}: {error.details()}") from None
                calls.append(Call(started, time.monotonic(), _count_transfers(response)))

        await asyncio.gather(*(call() for _ in range(in_flight)))
    return calls


def _unary_requests(load: BankLoad) -> Requests:
    headers = [http2_client.header_block(load.targets[0], _METHOD, TIMEOUT_SECONDS, token) for token in load.tokens]
    for sender, request in _transfers(load):
        yield headers[sender % len(headers)], request.SerializeToString()


def _bulk_requests(load: BankLoad) -> Requests:
    transfers = (request for _, request in _transfers(load))
    (token,) = load.tokens
    metadata = (("authorization", f"Bearer {token}"),)
    while True:
        yield metadata, bank_pb2.BatchTransferMoneyRequest(transfers=islice(transfers, load.items))


def _transfers(load: BankLoad) -> Iterator[tuple[int, bank_pb2.TransferMoneyRequest]]:
    rng = random.Random()  # noqa: S311  not used for secrets
    ids = [account_id(number) for number in range(load.accounts)]
    for sender, recipient in zipf_pairs(rng, load.accounts, load.skew):
        yield (
            sender,
            bank_pb2.TransferMoneyRequest(
                sender_id=ids[sender],
                recipient_id=ids[recipient],
                amount=_AMOUNT,
                idempotency_key=f"{rng.getrandbits(128):032x}",
            ),
        )


def _count_transfers(response: bank_pb2.BatchTransferMoneyResponse) -> int:
    for result in response.results:
        if not result.HasField("value"):
            raise CallError(f"a transfer of a bulk call was refused: {result.error.message}")
    return len(response.results)


def main() -> None:
    """Read a `BankLoad` from standard input and generate it."""
    load = BankLoad(**orjson.loads(sys.stdin.readline()))
    requests = prepare_requests(load)

    async def send_requests(window: LoadWindow) -> Sequence[Call]:
        return await call_bank(load, requests, window.end)

    run_generator(send_requests)


if __name__ == "__main__":
    main()
