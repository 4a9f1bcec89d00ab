"""Figures of analytics: latency of a history page in a small and in a large history.

Pages are read over gRPC from an analytics process with ClickHouse, as the gateway reads them. The rows are inserted
into ClickHouse directly. Each insert has operations of all accounts, as in production, where operations arrive in
the order of their time.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from benchmarks.analytics_environment import AnalyticsProcess, TwoHistoriesEnvironment
from benchmarks.figure import BenchError, Figure, Options
from loadtests.console import print_progress
from loadtests.statistics import percentiles
from subgraphs.analytics.client import AnalyticsClient, OperationFilter

_PAGE_VS_SMALL_HISTORY: Final = "analytics.page_5m_vs_10k"
FIGURES: Final[Collection[str]] = (_PAGE_VS_SMALL_HISTORY,)

_PAGE_SIZE: Final = 50
_VERSIONS: Final = 1_000
_SMALL_ACCOUNTS, _LARGE_ACCOUNTS = 10, 5_000
_MILLION: Final = 10**6  # number of operations of the largest account; also the number in its id
_SLICES: Final = 20
_COUNTERPARTIES: Final = 100
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)

_INSERT_HISTORY: Final = """
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
"""The account number and the version determine all columns. Every `accounts`-th row belongs to the same account."""


async def page_5m_vs_10k(environment: TwoHistoriesEnvironment, options: Options) -> Figure:
    """Latency of a page in a history of 5 million rows, divided by its latency in a history of 10 thousand rows."""
    small, large = environment.small, environment.large
    await _insert_history(small, first=0, accounts=_SMALL_ACCOUNTS, versions=_VERSIONS)
    await _insert_history(large, first=0, accounts=_LARGE_ACCOUNTS, versions=_VERSIONS)
    accounts = [_account_id(number) for number in range(_SMALL_ACCOUNTS)]
    for account_id in accounts:
        pages = [await side.client.list_operations(account_id, limit=_PAGE_SIZE) for side in (small, large)]
        if pages[0] != pages[1] or len(pages[0].operations) != _PAGE_SIZE:
            raise BenchError(f"the two histories return different pages for account {account_id}")
    parts = {"small": await _rows_by_part(small), "great": await _rows_by_part(large)}
    latencies = await _measure_alternately(
        {
            "small": lambda number: small.client.list_operations(accounts[number % _SMALL_ACCOUNTS], limit=_PAGE_SIZE),
            "great": lambda number: large.client.list_operations(accounts[number % _SMALL_ACCOUNTS], limit=_PAGE_SIZE),
        },
        2 * options.seconds,
    )
    medians = {name: statistics.median(values) for name, values in latencies.items()}
    print_progress(
        f"   median: {medians['small']:.2f} ms among 10 thousand rows, {medians['great']:.2f} ms among 5 million"
    )
    await _insert_history(large, first=_MILLION, accounts=1, versions=_MILLION)
    return Figure(
        figure=_PAGE_VS_SMALL_HISTORY,
        value=medians["great"] / medians["small"],
        unit="ratio",
        bar=1.5,
        better="lower",
        details={
            "page_ms": {name: percentiles(values) for name, values in latencies.items()},
            "pages": {name: len(values) for name, values in latencies.items()},
            "parts": parts,
            "others_ms": await _measure_other_queries(large.client, options),
        },
    )


async def _insert_history(process: AnalyticsProcess, *, first: int, accounts: int, versions: int) -> None:
    """Insert the operations of accounts with numbers from `first`, and wait until ClickHouse stops merging parts."""
    versions_per_slice = versions // _SLICES
    for after in range(0, versions, versions_per_slice):
        rows = accounts * versions_per_slice
        await process.query(
            _INSERT_HISTORY.format(first=first, accounts=accounts, after=after, rows=rows, others=_COUNTERPARTIES),
        )
    previous: list[int] = []
    while (parts := await _rows_by_part(process)) != previous:
        previous = parts
        await asyncio.sleep(1.0)


async def _rows_by_part(process: AnalyticsProcess) -> list[int]:
    """Return the number of rows of each part of the table, largest first."""
    parts = "SELECT rows FROM system.parts WHERE active AND database = currentDatabase() ORDER BY rows DESC"
    return [int(line) for line in (await process.query(parts)).split()]


async def _measure_other_queries(client: AnalyticsClient, options: Options) -> dict[str, dict[str, float]]:
    """Measure further queries of the large history, which also has an account with a million operations."""
    small_account, large_account = _account_id(0), _account_id(_MILLION)
    first = await client.list_operations(small_account, limit=1)
    counterparty = OperationFilter(counterparty_id=first.operations[0].counterparty_id)
    year: dict[str, datetime] = {"from_": _START, "to": _START + timedelta(days=365)}
    latencies = await _measure_alternately(
        {
            "page of a thousand": lambda _: client.list_operations(small_account, limit=_PAGE_SIZE),
            "page of a thousand, older than the middle": lambda _: client.list_operations(
                small_account, limit=_PAGE_SIZE, older_than=_VERSIONS // 2
            ),
            "page of a thousand, one counterparty": lambda _: client.list_operations(
                small_account, limit=_PAGE_SIZE, filter=counterparty
            ),
            "page of a million": lambda _: client.list_operations(large_account, limit=_PAGE_SIZE),
            "page of a million, older than the middle": lambda _: client.list_operations(
                large_account, limit=_PAGE_SIZE, older_than=_MILLION // 2
            ),
            "page of a million, one counterparty": lambda _: client.list_operations(
                large_account, limit=_PAGE_SIZE, filter=counterparty
            ),
            "days of a year of a million": lambda _: client.get_statistics(large_account, granularity="DAY", **year),
            "hours of a day of a million": lambda _: client.get_statistics(
                large_account, granularity="HOUR", from_=_START, to=_START + timedelta(days=1)
            ),
        },
        2 * options.seconds,
    )
    return {name: percentiles(values) for name, values in latencies.items()}


async def _measure_alternately(
    queries: Mapping[str, Callable[[int], Awaitable[object]]], seconds: float
) -> dict[str, Sequence[float]]:
    """Run the queries in turns after a warm-up, so that interference affects all of them equally.

    Returns:
        The latencies of each query in milliseconds.
    """
    latencies: dict[str, list[float]] = {name: [] for name in queries}
    warm = time.monotonic() + seconds / 4
    end = warm + seconds
    number = 0
    while (now := time.monotonic()) < end:
        for name, query in queries.items():
            started = time.perf_counter()
            await query(number)
            if now >= warm:
                latencies[name].append(1000 * (time.perf_counter() - started))
        number += 1
    return dict(latencies)


def _account_id(number: int) -> UUID:
    return UUID(f"00000000-0000-4000-8000-{number:012d}")


async def measure(names: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.FigureModule`."""
    if _PAGE_VS_SMALL_HISTORY in names:
        print_progress(f"{_PAGE_VS_SMALL_HISTORY}: {page_5m_vs_10k.__doc__}")
        async with TwoHistoriesEnvironment() as environment:
            yield await page_5m_vs_10k(environment, options)
