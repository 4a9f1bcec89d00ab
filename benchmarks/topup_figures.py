"""Figures of top-ups: their rate, and the time until interrupted top-ups are final after kill -9 of the card service.

The complete system runs with the sandbox acquirer, which responds without delay. Load and services share this machine.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID, uuid4

import aiohttp
import orjson

from benchmarks.figure import BenchError, Figure, Options
from benchmarks.system_environment import OneOwnerEnvironment
from loadtests.console import print_progress
from loadtests.statistics import percentiles
from stack.ports import HOST
from subgraphs.card.client import CardClient
from wallet.errors import TEMPORARY_ERRORS

_RATE: Final = "topups.per_second"
_RECOVERY: Final = "topups.recovery_p99_s"
FIGURES: Final[Collection[str]] = (_RATE, _RECOVERY)

_IN_FLIGHT: Final = 16
_KILLS: Final = 5
_TIMEOUT_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05
_FINAL_STATUSES: Final = {"COMPLETED", "DECLINED", "VOIDED", "REFUNDED"}
_BODY: Final = orjson.dumps(
    {
        "amount": "1.00",
        "card": {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2040, "cvv": "123"},
    }
)


class TopUpUser:
    """REST client that makes top-ups of one account, one after the other.

    Attributes:
        top_ups: start and end of each completed top-up, on the monotonic clock.
    """

    def __init__(self, environment: OneOwnerEnvironment, http: aiohttp.ClientSession, account: UUID) -> None:
        self._url = f"{environment.system.url}/accounts/{account}/topup"
        self._http = http
        self._headers = {"Authorization": f"Bearer {environment.token}", "Content-Type": "application/json"}
        self.top_ups: list[tuple[float, float]] = []

    async def top_up_until(self, deadline: float) -> None:
        """Make top-ups until the deadline, a time on the monotonic clock.

        Raises:
            BenchError: a top-up was refused, or its response does not have the status COMPLETED.
        """
        while (started := time.monotonic()) < deadline:
            status, body = await self.top_up()
            if status != HTTPStatus.ACCEPTED or orjson.loads(body)["status"] != "COMPLETED":
                raise BenchError(f"a top-up returned {status}: {body.decode()}")
            self.top_ups.append((started, time.monotonic()))

    async def top_up(self) -> tuple[int, bytes]:
        """Make one top-up with a new idempotency key, and return the status and the body of the response."""
        headers = {**self._headers, "Idempotency-Key": uuid4().hex}
        async with self._http.post(self._url, data=_BODY, headers=headers) as response:
            return response.status, await response.read()


def open_session() -> aiohttp.ClientSession:
    """Return an HTTP session of the users. It takes less of the shared processor than httpx."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_TIMEOUT_SECONDS), cookie_jar=aiohttp.DummyCookieJar())


async def per_second(environment: OneOwnerEnvironment, options: Options) -> Figure:
    """Top-ups per second over REST, from the card to the ledger, with 16 in flight."""
    start = time.monotonic() + options.warm_up_seconds
    end = start + options.seconds
    async with open_session() as http:
        users = [TopUpUser(environment, http, account) for account in environment.accounts[:_IN_FLIGHT]]
        read_cpu, load_cpu = environment.measure_cpu(), -time.process_time()
        async with asyncio.TaskGroup() as group:
            for user in users:
                group.create_task(user.top_up_until(end))
        cpu = read_cpu()
        load_cpu += time.process_time()  # of the users, which run in this process
    top_ups = [top_up for user in users for top_up in user.top_ups]
    await environment.ledger.verify(len(top_ups))
    cpu |= {"load": load_cpu, "others": cpu["others"] - load_cpu}
    latencies = [1_000 * (ended - started) for started, ended in top_ups if start <= ended <= end]
    return Figure(
        figure=_RATE,
        value=len(latencies) / options.seconds,
        unit="1/s",
        details={
            "latency_ms": percentiles(latencies),
            "in_flight": _IN_FLIGHT,
            "cpu_seconds": cpu,
            "cpu_ms_per_top_up": {name: round(1_000 * seconds / len(top_ups), 2) for name, seconds in cpu.items()},
        },
    )


async def recovery(environment: OneOwnerEnvironment, options: Options) -> Figure:  # noqa: ARG001
    """Seconds from kill -9 of the card service to the final status of each interrupted top-up."""
    recovery_seconds: list[float] = []
    async with (
        open_session() as http,
        CardClient.connect(f"{HOST}:{environment.system.ports.card_grpc}") as card,
    ):
        for number in range(_KILLS):
            accounts = environment.accounts[number * _IN_FLIGHT :][:_IN_FLIGHT]
            users = [TopUpUser(environment, http, account) for account in accounts]
            killed = await _kill_card_service(environment, users)
            interrupted = await _list_unfinished(card, accounts)
            recovery_seconds += await asyncio.gather(*(_wait_until_final(card, id_, killed) for id_ in interrupted))
            print_progress(
                f"   {len(interrupted)} interrupted top-ups; all are final after {time.monotonic() - killed:.1f} s"
            )
    if not recovery_seconds:
        raise BenchError("no kill interrupted a top-up")
    return Figure(
        figure=_RECOVERY,
        value=percentiles(recovery_seconds)["p99"],
        unit="s",
        better="lower",
        details={"seconds": percentiles(recovery_seconds), "cut_off": len(recovery_seconds), "kills": _KILLS},
    )


async def _kill_card_service(environment: OneOwnerEnvironment, users: Sequence[TopUpUser]) -> float:
    """Kill the card service after one second of top-ups, and wait until a top-up of each user has failed.

    Returns:
        The time of the kill, on the monotonic clock.
    """

    async def top_up_until_failure(user: TopUpUser) -> None:
        with suppress(aiohttp.ClientError, TimeoutError):
            while (await user.top_up())[0] == HTTPStatus.ACCEPTED:
                pass

    async with asyncio.TaskGroup() as group:
        for user in users:
            group.create_task(top_up_until_failure(user))
        await asyncio.sleep(1.0)
        os.kill(environment.system.pid("card"), signal.SIGKILL)
        return time.monotonic()  # evaluated right after the kill; the group then waits for the users


async def _list_unfinished(card: CardClient, accounts: Sequence[UUID]) -> list[UUID]:
    """Wait until the restarted service responds, and return the top-ups that are not final yet.

    Interrupted top-ups that are already final at that time are not measured; they took less time than the others.
    """
    while True:
        try:
            pages: list[Any] = [await card.list_top_ups(account, limit=100) for account in accounts]
        except TEMPORARY_ERRORS:
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return [top_up.id for page in pages for top_up in page.top_ups if top_up.status not in _FINAL_STATUSES]


async def _wait_until_final(card: CardClient, top_up_id: UUID, killed: float) -> float:
    """Return the seconds from the kill to the final status.

    Raises:
        BenchError: there is no final status after the time-out.
    """
    while (await card.get_top_up(top_up_id)).status not in _FINAL_STATUSES:
        if time.monotonic() - killed > _TIMEOUT_SECONDS:
            raise BenchError(f"the top-up {top_up_id} was not final after {_TIMEOUT_SECONDS:.0f} s")
        await asyncio.sleep(_POLL_SECONDS)
    return time.monotonic() - killed


async def measure(names: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.FigureModule`. Each figure has its own system."""
    for name, measure_figure in {_RATE: per_second, _RECOVERY: recovery}.items():
        if name in names:
            print_progress(f"{name}: {measure_figure.__doc__}")
            async with OneOwnerEnvironment() as environment:
                yield await measure_figure(environment, options)
