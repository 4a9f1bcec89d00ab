"""Figures of the pipeline's latency: from a transfer to its row in the history, and to messages of subscriptions.

The complete system runs on this machine, together with the load and the subscribers. Transfers start at a constant
rate in an open loop, so the load does not decrease when the system is slow.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection
from typing import Final

import orjson

from benchmarks.figure import BenchError, Figure, Options
from benchmarks.load_generator import start_generator
from benchmarks.subscribers import SubscribeCommand, SubscriptionResult, SubscriptionTarget
from benchmarks.system_environment import OneOwnerEnvironment
from loadtests.console import print_progress
from loadtests.statistics import percentiles
from subgraphs.bank.client import Receipt
from wallet import cursor

_COMMIT_TO_OPERATIONS: Final = "pipeline.commit_to_operations_p99_ms"
_FANOUT: Final = "pipeline.fanout_p99_ms"
FIGURES: Final[Collection[str]] = (_FANOUT, _COMMIT_TO_OPERATIONS)

_OPERATIONS_RATE: Final = 200.0
_POLL_SECONDS: Final = 0.02
_FANOUT_RATE: Final = 50.0
_SUBSCRIBERS_PER_ACCOUNT: Final = 5
_TIMEOUT_SECONDS: Final = 120.0


async def commit_to_operations(environment: OneOwnerEnvironment, options: Options) -> Figure:
    """Time from a transfer's response to its row in the sender's history, at 200 transfers per second."""
    latencies: list[float] = []
    poll_lock = asyncio.Lock()

    async def poll_history(receipt: Receipt) -> None:
        if poll_lock.locked():  # measure one transfer at a time, because polling adds load
            return
        async with poll_lock:
            latencies.append(await _time_until_stored(environment, receipt))

    await environment.transfer_at_rate(_OPERATIONS_RATE, options.warm_up_seconds)
    read_cpu = environment.measure_cpu()
    transfers = await environment.transfer_at_rate(_OPERATIONS_RATE, 2 * options.seconds, poll_history)
    print_progress(f"   {transfers} transfers, {len(latencies)} of them measured")
    return Figure(
        figure=_COMMIT_TO_OPERATIONS,
        value=percentiles(latencies)["p99"],
        unit="ms",
        bar=1_000.0,
        better="lower",
        details={
            "ms": percentiles(latencies),
            "looked_for": len(latencies),
            "transfers_per_second": _OPERATIONS_RATE,
            "looked_every_ms": 1_000 * _POLL_SECONDS,
            "cpu_seconds": read_cpu(),
        },
    )


async def _time_until_stored(environment: OneOwnerEnvironment, receipt: Receipt) -> float:
    """Return the milliseconds until a transfer is in its sender's history.

    Call it as soon as the transfer's response has arrived.

    Raises:
        BenchError: the row was not there when the time-out had passed.
    """
    answered = time.monotonic()
    posting = receipt.posting
    while True:
        page = await environment.analytics.list_operations(posting.account_id, limit=1)
        if page.operations and page.operations[0].account_version >= posting.version:
            return 1_000 * (time.monotonic() - answered)
        if time.monotonic() - answered > _TIMEOUT_SECONDS:
            raise BenchError(f"a transfer was not in the history after {_TIMEOUT_SECONDS:.0f} s")
        await asyncio.sleep(_POLL_SECONDS)


async def fanout(environment: OneOwnerEnvironment, options: Options) -> Figure:
    """Time from a transfer's commit to its 10 messages (200 accounts, each with 5 WebSockets; 50 transfers/s)."""
    await environment.transfer_at_rate(_FANOUT_RATE, options.warm_up_seconds)  # the first transfer creates the topic
    subscribed = [account for account in environment.accounts for _ in range(_SUBSCRIBERS_PER_ACCOUNT)]
    balances = [await environment.bank.get_balance(account) for account in subscribed]
    command = SubscribeCommand(
        url=environment.subscriptions_url,
        token=environment.token,
        accounts=list(map(str, subscribed)),
        after=[cursor.encode_version(balance.version) for balance in balances],
    )
    seconds = 2 * options.seconds
    planned = int(_FANOUT_RATE * seconds) * 2 * _SUBSCRIBERS_PER_ACCOUNT
    async with start_generator("benchmarks.subscribers") as subscribers:
        subscribers.send(command)
        await subscribers.receive(_TIMEOUT_SECONDS)
        print_progress(f"   {len(subscribed)} subscribers are connected")
        read_cpu = environment.measure_cpu(subscribers=subscribers.pid)
        subscribers.send(SubscriptionTarget(messages=planned, timeout_seconds=seconds + 30))
        transfers = await environment.transfer_at_rate(_FANOUT_RATE, seconds)
        result = SubscriptionResult(**orjson.loads(await subscribers.receive(_TIMEOUT_SECONDS)))
        cpu = read_cpu()
    expected = transfers * 2 * _SUBSCRIBERS_PER_ACCOUNT
    if result.error or result.repeats or len(result.latencies_ms) != expected:
        raise BenchError(
            f"{len(result.latencies_ms)} messages, expected {expected}; {result.repeats} repeats; "
            f"error of a subscription: {result.error or 'none'}",
        )
    return Figure(
        figure=_FANOUT,
        value=percentiles(result.latencies_ms)["p99"],
        unit="ms",
        bar=250.0,
        better="lower",
        details={
            "ms": percentiles(result.latencies_ms),
            "messages": len(result.latencies_ms),
            "subscribers": len(subscribed),
            "transfers_per_second": _FANOUT_RATE,
            "cpu_seconds": cpu,
        },
    )


async def measure(names: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.FigureModule`. Each figure has its own system."""
    for name, measure_figure in {_FANOUT: fanout, _COMMIT_TO_OPERATIONS: commit_to_operations}.items():
        if name in names:
            print_progress(f"{name}: {measure_figure.__doc__}")
            async with OneOwnerEnvironment() as environment:
                yield await measure_figure(environment, options)
