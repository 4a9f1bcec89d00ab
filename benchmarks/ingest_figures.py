"""Figures of ingestion: rate and memory of analytics while it stores the events of the topic.

All events are published before analytics starts, as after an outage. The measurement ends when all of them are stored.
The events have the format of the topic's AsyncAPI contract. They are transfers between a thousand accounts. Each
transfer increments the versions of its two accounts, and no version is missing.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import clickhouse_connect
import httpx
import orjson
from aiokafka import AIOKafkaProducer

from asyncapi.topics import OPERATIONS_TOPIC, TRANSFER_COMPLETED
from benchmarks.accounts import account_id
from benchmarks.analytics_environment import AnalyticsEnvironment, AnalyticsProcess
from benchmarks.figure import BenchError, Figure, Options
from loadtests.console import print_progress
from stack.engines.apache_kafka import POM, ApacheKafka
from stack.engines.children import Kafka
from stack.engines.jars import JarsUnavailable, fetch_jars
from stack.ports import HOST, free_ports

_INGEST_VS_RAW_INSERT: Final = "pipeline.ingest_vs_raw_insert"
_CATCH_UP_MEMORY: Final = "pipeline.catch_up_1m_mib"
FIGURES: Final[Collection[str]] = (_INGEST_VS_RAW_INSERT, _CATCH_UP_MEMORY)

_ACCOUNTS: Final = 1_000
_INGEST_EVENTS: Final = 20_000  # not more, because the embedded broker stores at most 5 MiB per partition
_CATCH_UP_EVENTS: Final = 1_000_000
_ROUNDS: Final = 3
_INSERT_ROWS: Final = 4_000  # rows per insert, as many as in the consumer's largest batch
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_POLL_SECONDS: Final = 0.05
_CATCH_UP_TIMEOUT_SECONDS: Final = 600.0
_HEADERS: Final = [
    ("ce_specversion", b"1.0"),
    ("ce_source", b"/wallet/bank"),
    ("ce_type", TRANSFER_COMPLETED.encode()),
    ("content-type", b"application/json"),
]


@dataclass(frozen=True, slots=True)
class BenchEvent:
    """Event of a transfer from account `number` to account `number` + 1, modulo the number of accounts.

    So each account is sender and recipient alternately.
    """

    number: int

    @property
    def id(self) -> UUID:
        """Id of the transfer."""
        return UUID(int=self.number + 1, version=4)

    @property
    def occurred_at(self) -> datetime:
        """Time of the transfer: one microsecond after the previous event."""
        return _START + timedelta(microseconds=self.number)

    def sides(self) -> Iterator[tuple[str, int]]:
        """Yield account id and version of the sender, then of the recipient."""
        sender = self.number % _ACCOUNTS
        recipient = (sender + 1) % _ACCOUNTS
        cycle_version = 2 * (self.number // _ACCOUNTS)
        # A cycle is one transfer from each account. In a cycle, account 0 sends first and receives last; every other
        # account receives before it sends.
        yield account_id(sender), cycle_version + (1 if sender == 0 else 2)
        yield account_id(recipient), cycle_version + (2 if recipient == 0 else 1)

    def message(self) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
        """Return key, value and headers of the Kafka message, as the bank's relay writes them."""
        sender, recipient = (
            {"accountId": account, "version": version, "balanceAfter": "100.00"} for account, version in self.sides()
        )
        value = {
            "transferId": str(self.id),
            "occurredAt": self.occurred_at.isoformat(),
            "amount": "10.25",
            "currency": "RUB",
            "sender": sender,
            "recipient": recipient,
        }
        headers = [*_HEADERS, ("ce_id", str(self.id).encode()), ("ce_time", self.occurred_at.isoformat().encode())]
        return str(sender["accountId"]).encode(), orjson.dumps(value), headers

    def rows(self) -> Iterator[Sequence[Any]]:
        """Yield the two rows of the history, with values in the order of the table's columns."""
        sides = list(self.sides())
        amount, balance = Decimal("10.25"), Decimal("100.00")
        for direction, (account, version), (other, _) in zip(("OUT", "IN"), sides, sides[::-1], strict=True):
            yield (
                UUID(account),
                version,
                self.id,
                "TRANSFER",
                direction,
                amount,
                "RUB",
                balance,
                UUID(other),
                self.occurred_at,
            )


async def _publish_events(brokers: str, events: int) -> None:
    """Publish the first `events` events and wait until the broker has confirmed them."""
    producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all", enable_idempotence=True, linger_ms=20)
    await producer.start()
    try:
        for number in range(events):
            key, value, headers = BenchEvent(number).message()
            await producer.send(OPERATIONS_TOPIC, value=value, key=key, headers=headers)
            if number and number % 100_000 == 0:
                print_progress(f"   {number:,} events published")
        await producer.flush()
    finally:
        await producer.stop()


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Measurements of analytics while it stored a backlog.

    Attributes:
        events_per_second: rate from the first poll that found stored events to the last poll.
        idle_mib: resident memory when analytics has become ready.
        peak_mib: peak resident memory.
    """

    events_per_second: float
    idle_mib: float
    peak_mib: float


async def _wait_for_catch_up(analytics: AnalyticsProcess, events: int) -> CatchUp:
    """Poll analytics until all events are stored, and return the measurements.

    Raises:
        BenchError: the events are not stored in time, or the history differs from them.
    """
    idle = _memory_mib(analytics, "VmRSS")
    started_at, first, stored = 0.0, 0.0, 0.0
    deadline = time.monotonic() + _CATCH_UP_TIMEOUT_SECONDS
    async with httpx.AsyncClient(trust_env=False) as http:
        while stored < events:
            if time.monotonic() > deadline:
                raise BenchError(f"only {stored:.0f} of {events} events were stored")
            await asyncio.sleep(_POLL_SECONDS)
            metrics = (await http.get(f"{analytics.admin}/metrics")).text
            stored = _metric(metrics, "wallet_analytics_events_consumed_total")
            if stored and not started_at:
                started_at, first = time.monotonic(), stored
    rate = (stored - first) / (time.monotonic() - started_at)
    by_account = "SELECT count() AS rows, max(account_version) AS newest FROM operations FINAL GROUP BY account_id"
    totals = f"SELECT sum(rows), countIf(rows != newest) FROM ({by_account})"  # noqa: S608  constant text
    if (actual := await analytics.query(totals)) != f"{2 * events}\t0":
        raise BenchError(f"stored rows, and accounts with missing versions: {actual}; expected {2 * events} and 0")
    return CatchUp(rate, idle, _memory_mib(analytics, "VmHWM"))


def _metric(metrics: str, name: str) -> float:
    return next((float(line.split()[1]) for line in metrics.splitlines() if line.startswith(f"{name} ")), 0.0)


def _memory_mib(analytics: AnalyticsProcess, field: str) -> float:
    """Return a size from /proc/<pid>/status; 0 without /proc."""
    status = Path(f"/proc/{analytics.child.pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)


def _measure_raw_insert(port: int, database: str, events: int) -> float:
    """Return the rows per second of inserts with ClickHouse's own client: the maximum rate of one Python process.

    The batches are prepared before the measurement and go into a table like the history's.
    """
    client = clickhouse_connect.get_client(host=HOST, port=port, database=database)
    try:
        client.command("CREATE TABLE raw AS operations")
        rows = [row for number in range(events) for row in BenchEvent(number).rows()]
        batches = [rows[at : at + _INSERT_ROWS] for at in range(0, len(rows), _INSERT_ROWS)]
        started = time.monotonic()
        for batch in batches:
            client.insert("raw", batch)
        return len(rows) / (time.monotonic() - started)
    finally:
        client.close()


async def ingest_vs_raw_insert() -> Figure:
    """Rows per second from the topic into the history, divided by those of direct inserts with ClickHouse's client."""
    rates: dict[str, list[float]] = {"consumer": [], "raw_insert": []}
    async with AnalyticsEnvironment() as environment:
        clickhouse_port = environment.clickhouse.process.ports["http"]
        for number in range(_ROUNDS):
            async with Kafka(*free_ports(1)) as kafka:
                await _publish_events(kafka.bootstrap_servers, _INGEST_EVENTS)
                async with environment.start_analytics(f"round_{number}", kafka.bootstrap_servers) as analytics:
                    catch_up = await _wait_for_catch_up(analytics, _INGEST_EVENTS)
            consumer = 2 * catch_up.events_per_second
            raw = await asyncio.to_thread(_measure_raw_insert, clickhouse_port, analytics.database, _INGEST_EVENTS)
            rates["consumer"].append(consumer)
            rates["raw_insert"].append(raw)
            print_progress(f"   consumer {consumer:,.0f} rows/s, raw insert {raw:,.0f} rows/s")
    return Figure(
        figure=_INGEST_VS_RAW_INSERT,
        value=max(rates["consumer"]) / max(rates["raw_insert"]),
        unit="ratio",
        bar=0.3,
        details={"rows_per_second": rates, "events": _INGEST_EVENTS},
    )


async def catch_up_1m() -> Figure:
    """Peak memory of analytics while it stores a backlog of a million events from Apache Kafka."""
    async with AnalyticsEnvironment() as environment:
        try:
            jars = await asyncio.to_thread(fetch_jars, POM)
        except JarsUnavailable as error:
            raise BenchError(f"{_CATCH_UP_MEMORY} needs Apache Kafka: {error}") from None
        async with ApacheKafka(jars, environment.folder / "kafka", *free_ports(2)) as kafka:
            await kafka.create(OPERATIONS_TOPIC)
            await _publish_events(kafka.bootstrap_servers, _CATCH_UP_EVENTS)
            async with environment.start_analytics("history", kafka.bootstrap_servers) as analytics:
                catch_up = await _wait_for_catch_up(analytics, _CATCH_UP_EVENTS)
    return Figure(
        figure=_CATCH_UP_MEMORY,
        value=catch_up.peak_mib,
        unit="MiB",
        better="lower",
        details={
            "at_start_mib": catch_up.idle_mib,
            "events_per_second": catch_up.events_per_second,
            "events": _CATCH_UP_EVENTS,
        },
    )


async def measure(names: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:  # noqa: ARG001
    """See `figure.FigureModule`. The number of events is fixed, so the option `seconds` has no effect."""
    for name, measure_figure in {_INGEST_VS_RAW_INSERT: ingest_vs_raw_insert, _CATCH_UP_MEMORY: catch_up_1m}.items():
        if name in names:
            print_progress(f"{name}: {measure_figure.__doc__}")
            yield await measure_figure()
