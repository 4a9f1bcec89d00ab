"""Runs of load on banks, measured."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import orjson

from benchmarks import load_generator
from benchmarks.bank_environment import Bank, Scene
from benchmarks.bank_load import TIMEOUT_SECONDS, Calls, Load, Window
from benchmarks.figure import BenchError
from benchmarks.ledger import Ledger
from benchmarks.run import Run, cpu_meter
from loadtests.statistics import percentiles

_GENERATOR: Final = "benchmarks.bank_load"
_READY_SECONDS: Final = 60.0


async def drive(
    scene: Scene,
    ledger: Ledger,
    banks: Sequence[Bank],
    loads: Sequence[Load],
    name: str,
    *,
    seconds: float | None = None,
) -> Run:
    """Each load by a generator of its own, all in the same window.

    Raises:
        BenchError: a call failed, or the ledger does not add up.
    """
    seconds = seconds or scene.options.seconds
    async with AsyncExitStack() as stack:
        generators = [await stack.enter_async_context(load_generator.running(_GENERATOR)) for _ in loads]
        for generator, load in zip(generators, loads, strict=True):
            generator.tell(load)
        for generator in generators:
            await generator.hear(_READY_SECONDS)
        await ledger.settle()
        before = await ledger.footprint()
        since = time.monotonic() + scene.options.warm_up
        window = Window(since=since, until=since + seconds)
        for generator in generators:
            generator.tell(window)
        await _sleep_until(window.since)
        used = cpu_meter(
            {
                "bank": [bank.pid for bank in banks],
                "postgres": [scene.postgres.pid or 0],
                "load": [generator.pid for generator in generators],
            },
        )
        counted = await _batches(banks)
        await _sleep_until(window.until)
        cpu, batches = used(), [now - then for now, then in zip(await _batches(banks), counted, strict=True)]
        patience = TIMEOUT_SECONDS + 10  # every call ends by its own time-out
        done = [Calls(**orjson.loads(await generator.hear(patience))) for generator in generators]
    for calls in done:
        if calls.error:
            raise BenchError(_explained(name, calls.error))
    acknowledged = sum(calls.acknowledged for calls in done)
    await ledger.check(acknowledged)
    return Run(
        name=name,
        rate=sum(calls.transfers for calls in done) / seconds,
        acknowledged=acknowledged,
        details={
            "latency_ms": percentiles([latency for calls in done for latency in calls.latencies_ms]),
            "batch_size": batches[1] / batches[0] if batches[0] else None,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "per_transfer": (await ledger.footprint() - before).each(acknowledged),
        },
    ).told()


async def _batches(banks: Sequence[Bank]) -> tuple[float, float]:
    """Of all replicas: batches, and the items in them."""
    counted = [await bank.batches() for bank in banks]
    return sum(number for number, _ in counted), sum(items for _, items in counted)


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def _explained(name: str, error: str) -> str:
    if error.startswith("RESOURCE_EXHAUSTED"):
        return f"{name}: the bank shed load, so this run asks for more at once than its queue holds: {error}"
    return f"{name}: a call failed: {error}"
