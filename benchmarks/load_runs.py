"""Measurement of transfer rates on one or more replicas of the bank, for the bank's figures."""

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import orjson

from benchmarks.bank_environment import BankEnvironment, BankProcess
from benchmarks.bank_load import TIMEOUT_SECONDS, BankLoad
from benchmarks.cpu_usage import start_cpu_meter
from benchmarks.figure import BenchError
from benchmarks.ledger import Ledger
from benchmarks.load_generator import LoadResult, LoadWindow, sleep_until, start_generator
from benchmarks.run import Run
from loadtests.statistics import percentiles

_GENERATOR: Final = "benchmarks.bank_load"
_READY_TIMEOUT_SECONDS: Final = 60.0


async def measure_bank_loads(
    environment: BankEnvironment,
    ledger: Ledger,
    banks: Sequence[BankProcess],
    loads: Sequence[BankLoad],
    name: str,
    *,
    seconds: float | None = None,
) -> Run:
    """Generate all loads at the same time, each in its own process, and verify the ledger afterwards.

    Args:
        environment: environment in which the banks run.
        ledger: database of the banks.
        banks: all running banks; their batches and processor time are measured.
        loads: load of each generator.
        name: name of the run in the progress and in the details.
        seconds: duration of the measurement; by default `Options.seconds` of the environment.

    Raises:
        BenchError: a call failed, or the ledger is not consistent.
    """
    seconds = seconds or environment.options.seconds
    async with AsyncExitStack() as stack:
        generators = [await stack.enter_async_context(start_generator(_GENERATOR)) for _ in loads]
        for generator, load in zip(generators, loads, strict=True):
            generator.send(load)
        for generator in generators:
            await generator.receive(_READY_TIMEOUT_SECONDS)
        await ledger.vacuum()
        footprint_before = await ledger.footprint()
        start = time.monotonic() + environment.options.warm_up_seconds
        window = LoadWindow(start=start, end=start + seconds)
        for generator in generators:
            generator.send(window)
        await sleep_until(window.start)
        read_cpu = start_cpu_meter({**environment.pids(), "load": [generator.pid for generator in generators]})
        batches_before = await _count_batches(banks)
        await sleep_until(window.end)
        cpu = read_cpu()
        batches, items = (
            after - before for after, before in zip(await _count_batches(banks), batches_before, strict=True)
        )
        timeout = TIMEOUT_SECONDS + 10  # longer than the time-out of each call
        results = [LoadResult(**orjson.loads(await generator.receive(timeout))) for generator in generators]
    for result in results:
        if result.error:
            raise BenchError(_explain_failure(name, result.error))
    acknowledged = sum(result.acknowledged for result in results)
    await ledger.verify(acknowledged)
    run = Run(
        name=name,
        rate=sum(result.transfers for result in results) / seconds,
        acknowledged=acknowledged,
        details={
            "latency_ms": percentiles([latency for result in results for latency in result.latencies_ms]),
            "batch_size": items / batches if batches else None,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "per_transfer": (await ledger.footprint() - footprint_before).per_transfer(acknowledged),
        },
    )
    run.print_summary()
    return run


async def _count_batches(banks: Sequence[BankProcess]) -> tuple[float, float]:
    """Return the number of batches of all banks, and the number of transfers in them."""
    counts = [await bank.count_batches() for bank in banks]
    return sum(batches for batches, _ in counts), sum(items for _, items in counts)


def _explain_failure(name: str, error: str) -> str:
    if error.startswith("RESOURCE_EXHAUSTED"):
        return f"{name}: the bank refused calls: the load has more calls in flight than the bank can queue: {error}"
    return f"{name}: a call failed: {error}"
