"""Figures of identity: rate of logins, and latency of other calls during the logins.

One identity service runs on PostgreSQL, both with the settings of production. The load runs on the same machine.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection
from typing import Final

import httpx

from benchmarks.figure import BenchError, Figure, Options
from benchmarks.identity_environment import IdentityEnvironment
from loadtests.console import print_progress
from loadtests.statistics import percentiles
from wallet.errors import WalletError
from wallet.inputs import Secret

_LOGINS: Final = "identity.logins_per_second"
FIGURES: Final[Collection[str]] = (_LOGINS,)

_IN_FLIGHT: Final = 16
_PROBE_SECONDS: Final = 0.005
_PASSWORD: Final = Secret("correct horse battery")


async def logins_per_second(environment: IdentityEnvironment, options: Options) -> Figure:
    """Logins per second of 16 users who log in repeatedly, each login with a password hash.

    At the same time one client requests the public keys. Such a request needs only the event loop, so its latency,
    `keys_ms` in the details, shows how long a password hash blocks the loop.

    Raises:
        BenchError: a login was refused.
    """
    logins: list[tuple[float, float]] = []
    keys_ms: list[float] = []
    for number in range(_IN_FLIGHT):
        await environment.client.register(f"user-{number}", _PASSWORD)
    start = time.monotonic() + options.warm_up_seconds
    end = start + options.seconds

    async def log_in(number: int) -> None:
        while (started := time.monotonic()) < end:
            await environment.client.authenticate(f"user-{number}", _PASSWORD)
            logins.append((started, time.monotonic()))

    async def request_keys() -> None:
        async with httpx.AsyncClient(base_url=environment.admin, trust_env=False) as http:
            while (started := time.monotonic()) < end:
                await http.get("/.well-known/jwks.json")
                if started >= start:
                    keys_ms.append(1_000 * (time.monotonic() - started))
                await asyncio.sleep(_PROBE_SECONDS)

    read_cpu = environment.measure_cpu()
    refusal = None  # raised outside of `except*`, which wraps errors in a group before Python 3.11.4
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(request_keys())
            for number in range(_IN_FLIGHT):
                group.create_task(log_in(number))
    except* WalletError as errors:
        refusal = errors.exceptions[0]
    if refusal is not None:
        raise BenchError(f"a login was refused: {refusal}")
    latencies = [1_000 * (ended - started) for started, ended in logins if start <= ended <= end]
    return Figure(
        figure=_LOGINS,
        value=len(latencies) / options.seconds,
        unit="logins/s",
        details={
            "in_flight": _IN_FLIGHT,
            "latency_ms": percentiles(latencies),
            "keys_ms": {**percentiles(keys_ms), "longest": max(keys_ms)},
            "cpu_seconds": read_cpu(),
        },
    )


async def measure(names: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.FigureModule`."""
    if _LOGINS in names:
        async with IdentityEnvironment() as environment:
            print_progress("one identity service; password hashes with the second parameter set of RFC 9106")
            yield await logins_per_second(environment, options)
