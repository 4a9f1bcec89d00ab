"""How long people wait: from a transfer's commit to its place in the history, and to the screen of who watches.

Measured over the whole system, as `make up` runs it, on this one machine: load, subscribers and all services share it.
Transfers come at a constant rate, whatever becomes of those before, so a system that stalls is not asked less.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection
from typing import Final

import orjson

from benchmarks import load_generator
from benchmarks.figure import BenchError, Figure, Options
from benchmarks.subscribers import Crowd, Goal, Seen
from benchmarks.system_environment import Scene
from loadtests.console import print_progress
from loadtests.statistics import percentiles
from stack.ports import HOST
from subgraphs.bank.client import Receipt
from wallet import cursor

_OPERATIONS: Final = "pipeline.commit_to_operations_p99_ms"
_FANOUT: Final = "pipeline.fanout_p99_ms"
FIGURES: Final[Collection[str]] = (_FANOUT, _OPERATIONS)

_RATE: Final = 200.0
_LOOK_SECONDS: Final = 0.02

_FANOUT_RATE: Final = 50.0
_WATCHERS: Final = 5  # of each account
_SUBSCRIBERS: Final = "benchmarks.subscribers"
_PATIENCE_SECONDS: Final = 120.0


async def commit_to_operations(scene: Scene, options: Options) -> Figure:
    """How long after its answer a transfer stands in the sender's history, at 200 transfers a second."""
    took: list[float] = []
    looking = asyncio.Lock()

    async def find(_: int, receipt: Receipt) -> None:
        if looking.locked():  # one at a time: who looks is part of the load
            return
        async with looking:
            took.append(await _until_stored(scene, receipt))

    await scene.transfers(_RATE, options.warm_up, _ignore)
    used = scene.cpu()
    transfers = await scene.transfers(_RATE, 2 * options.seconds, find)
    print_progress(f"   {transfers} transfers, {len(took)} looked for")
    return Figure(
        figure=_OPERATIONS,
        value=percentiles(took)["p99"],
        unit="ms",
        bar=1_000.0,
        better="lower",
        details={
            "ms": percentiles(took),
            "looked_for": len(took),
            "transfers_per_second": _RATE,
            "looked_every_ms": 1_000 * _LOOK_SECONDS,
            "cpu_seconds": used(),
        },
    )


async def _ignore(_: int, __: Receipt) -> None:
    """What is made before the start."""


async def _until_stored(scene: Scene, receipt: Receipt) -> float:
    """Milliseconds until a transfer that was just answered stands in its sender's history.

    Raises:
        BenchError: it does not come.
    """
    committed = time.monotonic()
    posting = receipt.posting
    while True:
        page = await scene.analytics.list_operations(posting.account_id, limit=1)
        if page.operations and page.operations[0].account_version >= posting.version:
            return 1_000 * (time.monotonic() - committed)
        if time.monotonic() - committed > _PATIENCE_SECONDS:
            raise BenchError("a transfer did not come into the history")
        await asyncio.sleep(_LOOK_SECONDS)


async def fanout(scene: Scene, options: Options) -> Figure:
    """How long after its commit an operation is with each of 1,000 WebSockets that watch 200 accounts, at 50 transfers
    a second among these.
    """
    await scene.transfers(_FANOUT_RATE, options.warm_up, _ignore)  # the first of all makes the topic
    watched = [account for account in scene.accounts for _ in range(_WATCHERS)]
    after = [cursor.encode_version((await scene.bank.get_balance(account)).version) for account in watched]
    url = f"ws://{HOST}:{scene.system.ports.gateway}/graphql"
    crowd = Crowd(url=url, token=scene.token, accounts=list(map(str, watched)), after=after)
    async with load_generator.running(_SUBSCRIBERS) as subscribers:
        subscribers.tell(crowd)
        await subscribers.hear(_PATIENCE_SECONDS)
        print_progress(f"   {len(watched)} subscribers are there")
        postings = 0

        async def count(number: int, receipt: Receipt) -> None:  # noqa: ARG001
            nonlocal postings
            postings += 2

        used = scene.cpu(subscribers=subscribers.pid)
        seconds = 2 * options.seconds
        subscribers.tell(Goal(operations=int(_FANOUT_RATE * seconds) * 2 * _WATCHERS, seconds=seconds + 30))
        await scene.transfers(_FANOUT_RATE, seconds, count)
        seen = Seen(**orjson.loads(await subscribers.hear(_PATIENCE_SECONDS)))
        cpu = used()
    if seen.error or seen.repeats or len(seen.latencies_ms) != postings * _WATCHERS:
        raise BenchError(
            f"{len(seen.latencies_ms)} messages where {postings * _WATCHERS} were due, {seen.repeats} of them repeats; "
            f"{seen.error or 'no subscription ended'}",
        )
    return Figure(
        figure=_FANOUT,
        value=percentiles(seen.latencies_ms)["p99"],
        unit="ms",
        bar=250.0,
        better="lower",
        details={
            "ms": percentiles(seen.latencies_ms),
            "messages": len(seen.latencies_ms),
            "subscribers": len(watched),
            "transfers_per_second": _FANOUT_RATE,
            "cpu_seconds": cpu,
        },
    )


async def measure(wanted: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.Part`."""
    for name, figure in {_FANOUT: fanout, _OPERATIONS: commit_to_operations}.items():
        if name in wanted:
            print_progress(f"{name}: {' '.join((figure.__doc__ or '').split())}")
            async with Scene.set() as scene:
                yield await figure(scene, options)
