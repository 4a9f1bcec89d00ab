"""Analytics' figures: what a page of the history costs when the history grows.

Pages are read as the gateway reads them: by gRPC, from analytics in a process of its own, with ClickHouse behind it.
The rows come straight into its table, in slices of time as an operation's rows do, not account by account.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self
from uuid import UUID

from benchmarks.analytics_environment import Store, settings
from benchmarks.bank_environment import Callers
from benchmarks.figure import BenchError, Figure, Options
from kit.rpc import request_context
from loadtests.console import print_progress
from loadtests.statistics import percentiles
from stack import probes
from stack.engines.children import ClickHouse, Kafka
from stack.ports import HOST, free_ports
from stack.process import Child, Process, module
from subgraphs.analytics.client import AnalyticsClient, OperationFilter

_FIGURE: Final = "analytics.page_5m_vs_10k"
FIGURES: Final[Collection[str]] = (_FIGURE,)

_PAGE: Final = 50
_VERSIONS: Final = 1_000
_FEW, _MANY = 10, 5_000  # accounts
_GREAT: Final = 10**6  # the number of the account that has as many operations
_SLICES: Final = 20
_COUNTERPARTIES: Final = 100
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)

_FILL: Final = """
    INSERT INTO operations
    SELECT
        toUUID(concat('00000000-0000-4000-8000-', leftPad(toString(account), 12, '0'))),
        version,
        toUUID(concat(leftPad(toString(version), 8, '0'), '-0000-4000-8000-', leftPad(toString(account), 12, '0'))),
        if(version % 10 = 1, 'TOP_UP', 'TRANSFER'),
        if(version % 2 = 1, 'IN', 'OUT'),
        toDecimal128('10.25', 4),
        'RUB',
        toDecimal128(if(version % 2 = 1, '10.25', '0'), 4),
        toUUID(concat('00000000-0000-4000-9000-', leftPad(toString(cityHash64(version) % {others}), 12, '0'))),
        toDateTime64('2026-01-01 00:00:00', 6, 'UTC') + toIntervalSecond(30 * version)
    FROM (
        SELECT {first} + number % {accounts} AS account, {after} + 1 + intDiv(number, {accounts}) AS version
        FROM numbers({rows})
    )
"""
"""Every `accounts`-th row is the same account's: a row says what its account's number and its version say."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A small history and a great one, behind the same server."""

    small: Store
    great: Store

    @classmethod
    @asynccontextmanager
    async def set(cls) -> AsyncIterator[Self]:
        """Both empty. Their bank knows of every account that it is there, and of nothing to repair."""
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wallet-bench-")))
            kafka_port, clickhouse_port, bank_port = free_ports(3)
            bank_at = f"{HOST}:{bank_port}"
            bank = module("benchmarks.service_stubs", bank_at)
            await stack.enter_async_context(
                Child(Process(name="bank", command=bank, ready=probes.tcp(HOST, bank_port)))
            )
            kafka = await stack.enter_async_context(Kafka(kafka_port))
            clickhouse = await stack.enter_async_context(ClickHouse(folder / "clickhouse", clickhouse_port))
            callers = Callers(folder)
            shared = settings(folder, callers, kafka.bootstrap_servers) | {"BANK_GRPC_TARGET": bank_at}
            stack.enter_context(request_context.as_service(lambda: callers.admin))
            small, great = [
                await stack.enter_async_context(Store.open(clickhouse, name, shared)) for name in ("small", "great")
            ]
            yield cls(small, great)


async def _fill(store: Store, *, first: int, accounts: int, versions: int) -> None:
    """Inserts the history of accounts that are numbered from `first`."""
    each = versions // _SLICES
    for after in range(0, versions, each):
        await store.tell(
            _FILL.format(first=first, accounts=accounts, after=after, rows=accounts * each, others=_COUNTERPARTIES),
        )
    seen: list[int] = []
    while (parts := await _parts(store)) != seen:  # until ClickHouse has merged what it cares to
        seen = parts
        await asyncio.sleep(1.0)


async def _parts(store: Store) -> list[int]:
    """The rows in each part of the table."""
    parts = "SELECT rows FROM system.parts WHERE active AND database = currentDatabase() ORDER BY rows DESC"
    return [int(line) for line in (await store.tell(parts)).split()]


async def page_5m_vs_10k(scene: Scene, options: Options) -> Figure:
    """A page of an account of a thousand operations, in a table of 5 million against one of 10 thousand."""
    await _fill(scene.small, first=0, accounts=_FEW, versions=_VERSIONS)
    await _fill(scene.great, first=0, accounts=_MANY, versions=_VERSIONS)
    accounts = [_account(number) for number in range(_FEW)]
    for account_id in accounts:
        pages = [await side.client.list_operations(account_id, limit=_PAGE) for side in (scene.small, scene.great)]
        if pages[0] != pages[1] or len(pages[0].operations) != _PAGE:
            raise BenchError("the two histories do not say the same")
    parts = {"small": await _parts(scene.small), "great": await _parts(scene.great)}
    took = await _alternating(
        {
            "small": lambda number: scene.small.client.list_operations(accounts[number % _FEW], limit=_PAGE),
            "great": lambda number: scene.great.client.list_operations(accounts[number % _FEW], limit=_PAGE),
        },
        2 * options.seconds,
    )
    medians = {name: statistics.median(values) for name, values in took.items()}
    print_progress(
        f"   median: {medians['small']:.2f} ms among 10 thousand rows, {medians['great']:.2f} ms among 5 million"
    )
    await _fill(scene.great, first=_GREAT, accounts=1, versions=_GREAT)
    return Figure(
        figure=_FIGURE,
        value=medians["great"] / medians["small"],
        unit="ratio",
        bar=1.5,
        better="lower",
        details={
            "page_ms": {name: percentiles(values) for name, values in took.items()},
            "pages": {name: len(values) for name, values in took.items()},
            "parts": parts,
            "others_ms": await _others(scene.great.client, options),
        },
    )


async def _others(client: AnalyticsClient, options: Options) -> dict[str, dict[str, float]]:
    """What else is read from the great history, beside an account that has a million operations of its own."""
    usual, great = _account(0), _account(_GREAT)
    first = await client.list_operations(usual, limit=1)
    friend = OperationFilter(counterparty_id=first.operations[0].counterparty_id)
    year: dict[str, datetime] = {"from_": _START, "to": _START + timedelta(days=365)}
    took = await _alternating(
        {
            "page of a thousand": lambda _: client.list_operations(usual, limit=_PAGE),
            "page of a thousand, older than the middle": lambda _: client.list_operations(
                usual, limit=_PAGE, older_than=_VERSIONS // 2
            ),
            "page of a thousand, one counterparty": lambda _: client.list_operations(usual, limit=_PAGE, filter=friend),
            "page of a million": lambda _: client.list_operations(great, limit=_PAGE),
            "page of a million, older than the middle": lambda _: client.list_operations(
                great, limit=_PAGE, older_than=_GREAT // 2
            ),
            "page of a million, one counterparty": lambda _: client.list_operations(great, limit=_PAGE, filter=friend),
            "days of a year of a million": lambda _: client.get_statistics(great, granularity="DAY", **year),
            "hours of a day of a million": lambda _: client.get_statistics(
                great, granularity="HOUR", from_=_START, to=_START + timedelta(days=1)
            ),
        },
        2 * options.seconds,
    )
    return {name: percentiles(values) for name, values in took.items()}


async def _alternating(
    reads: Mapping[str, Callable[[int], Awaitable[object]]], seconds: float
) -> dict[str, Sequence[float]]:
    """How long each read took, in milliseconds, time after time: one of each in turn, so that whatever else the machine
    does meets all of them alike.
    """
    took: dict[str, list[float]] = {name: [] for name in reads}
    warm = time.monotonic() + seconds / 4
    end = warm + seconds
    number = 0
    while (now := time.monotonic()) < end:
        for name, read in reads.items():
            started = time.perf_counter()
            await read(number)
            if now >= warm:
                took[name].append(1000 * (time.perf_counter() - started))
        number += 1
    return dict(took)


def _account(number: int) -> UUID:
    return UUID(f"00000000-0000-4000-8000-{number:012d}")


async def measure(wanted: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.Part`."""
    if _FIGURE in wanted:
        print_progress(f"{_FIGURE}: {page_5m_vs_10k.__doc__}")
        async with Scene.set() as scene:
            yield await page_5m_vs_10k(scene, options)
