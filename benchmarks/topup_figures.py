"""Paying in by card: how many top-ups a second, and how soon one that was cut off by kill -9 is complete.

Measured over the whole system, with the sandbox acquirer at no delay; load and all services share this one machine.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import UUID, uuid4

import httpx

from benchmarks.figure import BenchError, Figure, Options
from benchmarks.system_environment import Scene
from loadtests.console import print_progress
from loadtests.statistics import percentiles
from stack.ports import HOST
from subgraphs.card.client import CardClient
from wallet.errors import Unavailable

_RATE: Final = "topups.per_second"
_RECOVERY: Final = "topups.recovery_p99_s"
FIGURES: Final[Collection[str]] = (_RATE, _RECOVERY)

_IN_FLIGHT: Final = 16
_KILLS: Final = 5
_PATIENCE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_FINAL: Final = {"COMPLETED", "DECLINED", "VOIDED", "REFUNDED"}
_BODY: Final = {
    "amount": "1.00",
    "card": {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2040, "cvv": "123"},
}


class Payer:
    """Somebody who pays in over and over, one top-up after the other, as REST clients do."""

    def __init__(self, scene: Scene, http: httpx.AsyncClient, account: UUID) -> None:
        self._path = f"/accounts/{account}/topup"
        self._http = http
        self._headers = {"Authorization": f"Bearer {scene.token}"}
        self.finished: list[tuple[float, float]] = []

    async def pay(self, until: float) -> None:
        """Pays in until then, on the monotonic clock.

        Raises:
            BenchError: a top-up was refused, or did not complete at once.
        """
        while (began := time.monotonic()) < until:
            answer = await self.once()
            if answer.status_code != httpx.codes.ACCEPTED or answer.json()["status"] != "COMPLETED":
                raise BenchError(f"a top-up was answered {answer.status_code}: {answer.text}")
            self.finished.append((began, time.monotonic()))

    async def once(self) -> httpx.Response:
        """One top-up, with a key of its own."""
        return await self._http.post(
            self._path, json=_BODY, headers={**self._headers, "Idempotency-Key": uuid4().hex}, timeout=_PATIENCE_SECONDS
        )


async def per_second(scene: Scene, options: Options) -> Figure:
    """Top-ups a second by REST through the gateway, each from the card to the ledger, with 16 in flight."""
    since = time.monotonic() + options.warm_up
    until = since + options.seconds
    async with httpx.AsyncClient(base_url=scene.system.url, trust_env=False) as http:
        payers = [Payer(scene, http, account) for account in scene.accounts[:_IN_FLIGHT]]
        used = scene.cpu()
        async with asyncio.TaskGroup() as group:
            for payer in payers:
                group.create_task(payer.pay(until))
        cpu = used()
    took = [1_000 * (end - began) for payer in payers for began, end in payer.finished if since <= end <= until]
    return Figure(
        figure=_RATE,
        value=len(took) / options.seconds,
        unit="1/s",
        details={"latency_ms": percentiles(took), "in_flight": _IN_FLIGHT, "cpu_seconds": cpu},
    )


async def recovery(scene: Scene, options: Options) -> Figure:  # noqa: ARG001
    """Seconds from kill -9 of the card service to the end of each top-up that it cut off."""
    took: list[float] = []
    async with (
        httpx.AsyncClient(base_url=scene.system.url, trust_env=False) as http,
        CardClient.connect(f"{HOST}:{scene.system.ports.card_grpc}") as card,
    ):
        for number in range(_KILLS):
            accounts = scene.accounts[number * _IN_FLIGHT :][:_IN_FLIGHT]
            await _cut(scene, [Payer(scene, http, account) for account in accounts])
            killed = time.monotonic()
            cut = await _unfinished(card, accounts)
            if len(cut) == 0:
                print_progress("   nothing was cut off")
            took += await asyncio.gather(*(_ended(card, top_up, killed) for top_up in cut))
            print_progress(
                f"   {len(cut)} top-ups were cut off; all of them are final after {time.monotonic() - killed:.1f} s"
            )
    if not took:
        raise BenchError("no kill cut a top-up off")
    return Figure(
        figure=_RECOVERY,
        value=percentiles(took)["p99"],
        unit="s",
        better="lower",
        details={"seconds": percentiles(took), "cut_off": len(took), "kills": _KILLS},
    )


async def _cut(scene: Scene, payers: Sequence[Payer]) -> None:
    """Kills the card service while everybody pays in."""

    async def pay_regardless(payer: Payer) -> None:
        with suppress(httpx.HTTPError):
            while (await payer.once()).status_code == httpx.codes.ACCEPTED:
                pass

    async with asyncio.TaskGroup() as group:
        for payer in payers:
            group.create_task(pay_regardless(payer))
        await asyncio.sleep(1.0)
        os.kill(scene.system.pid("card"), signal.SIGKILL)


async def _unfinished(card: CardClient, accounts: Sequence[UUID]) -> list[UUID]:
    """The top-ups that are not final when the service answers again; what ended before it did took no longer."""
    while True:
        try:
            pages: list[Any] = [await card.list_top_ups(account, limit=100) for account in accounts]
        except Unavailable:
            await asyncio.sleep(_LOOK_SECONDS)
        else:
            return [top_up.id for page in pages for top_up in page.top_ups if top_up.status not in _FINAL]


async def _ended(card: CardClient, top_up_id: UUID, killed: float) -> float:
    while (await card.get_top_up(top_up_id)).status not in _FINAL:
        if time.monotonic() - killed > _PATIENCE_SECONDS:
            raise BenchError(f"the top-up {top_up_id} did not end")
        await asyncio.sleep(_LOOK_SECONDS)
    return time.monotonic() - killed


async def measure(wanted: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.Part`."""
    for name, figure in {_RATE: per_second, _RECOVERY: recovery}.items():
        if name in wanted:
            print_progress(f"{name}: {' '.join((figure.__doc__ or '').split())}")
            async with Scene.set() as scene:
                yield await figure(scene, options)
