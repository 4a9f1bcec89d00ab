"""How fast the topic comes into the history, and what memory that takes.

The topic is filled first, then analytics starts, as after an outage, and is watched until everything is stored. Events
are the contract's, between a thousand accounts, each account's versions without gaps.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import AsyncExitStack
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
from benchmarks.analytics_environment import Store, settings
from benchmarks.bank_environment import Callers
from benchmarks.figure import BenchError, Figure, Options
from loadtests.console import print_progress
from stack.engines.apache_kafka import ApacheKafka, ApacheKafkaUnavailable, fetch_jars
from stack.engines.children import ClickHouse, Kafka
from stack.ports import HOST, free_ports

_INGEST: Final = "pipeline.ingest_vs_raw_insert"
_CATCH_UP: Final = "pipeline.catch_up_1m_mib"
FIGURES: Final[Collection[str]] = (_INGEST, _CATCH_UP)

_ACCOUNTS: Final = 1_000
_FEW: Final = 20_000  # events; the embedded broker holds no more than 5 MiB a partition
_MANY: Final = 1_000_000
_ROUNDS: Final = 3
_INSERT_ROWS: Final = 4_000  # at once, as the consumer's largest batch
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_LOOK_SECONDS: Final = 0.05
_PATIENCE_SECONDS: Final = 600.0
_HEADERS: Final = [
    ("ce_specversion", b"1.0"),
    ("ce_source", b"/wallet/bank"),
    ("ce_type", TRANSFER_COMPLETED.encode()),
    ("content-type", b"application/json"),
]


@dataclass(frozen=True, slots=True)
class Event:
    """The n-th transfer: account n pays account n + 1, round and round, so each account pays and is paid in turn."""

    number: int

    @property
    def id(self) -> UUID:
        """The transfer's."""
        return UUID(int=self.number + 1, version=4)

    @property
    def at(self) -> datetime:
        """A microsecond after the one before."""
        return _START + timedelta(microseconds=self.number)

    def sides(self) -> Iterator[tuple[str, int]]:
        """Account and version of the sender and of the recipient."""
        sender = self.number % _ACCOUNTS
        recipient = (sender + 1) % _ACCOUNTS
        around = 2 * (self.number // _ACCOUNTS)
        # Account 0 pays first in a round and is paid last; every other is paid before it pays.
        yield account_id(sender), around + (1 if sender == 0 else 2)
        yield account_id(recipient), around + (2 if recipient == 0 else 1)

    def message(self) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
        """Key, value and headers, as the bank's relay makes them."""
        sender, recipient = (
            {"accountId": account, "version": version, "balanceAfter": "100.00"} for account, version in self.sides()
        )
        value = {
            "transferId": str(self.id),
            "occurredAt": self.at.isoformat(),
            "amount": "10.25",
            "currency": "RUB",
            "sender": sender,
            "recipient": recipient,
        }
        headers = [*_HEADERS, ("ce_id", str(self.id).encode()), ("ce_time", self.at.isoformat().encode())]
        return str(sender["accountId"]).encode(), orjson.dumps(value), headers

    def rows(self) -> Iterator[Sequence[Any]]:
        """What the history has of it, in the order of the table's columns."""
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
                self.at,
            )


async def _publish(brokers: str, events: int) -> None:
    """Fills the topic."""
    producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all", enable_idempotence=True, linger_ms=20)
    await producer.start()
    try:
        for number in range(events):
            key, value, headers = Event(number).message()
            await producer.send(OPERATIONS_TOPIC, value=value, key=key, headers=headers)
            if number and number % 100_000 == 0:
                print_progress(f"   {number:,} events published")
        await producer.flush()
    finally:
        await producer.stop()


@dataclass(frozen=True, slots=True)
class CatchUp:
    """How analytics stored the whole topic: events a second between the first and the last look at what it had stored;
    its memory before the first event and at most, in MiB.
    """

    events_per_second: float
    idle_mib: float
    peak_mib: float


async def _catch_up(store: Store, events: int) -> CatchUp:
    """Watches analytics until everything is stored.

    Raises:
        BenchError: the history is not what was published.
    """
    idle = _mib(store, "VmRSS")
    began, first, stored = 0.0, 0.0, 0.0
    give_up = time.monotonic() + _PATIENCE_SECONDS
    async with httpx.AsyncClient(trust_env=False) as http:
        while stored < events:
            if time.monotonic() > give_up:
                raise BenchError(f"only {stored:.0f} of {events} events were stored")
            await asyncio.sleep(_LOOK_SECONDS)
            metrics = (await http.get(f"{store.admin}/metrics")).text
            stored = _sample(metrics, "wallet_analytics_events_consumed_total")
            if stored and not began:
                began, first = time.monotonic(), stored
    rate = (stored - first) / (time.monotonic() - began)
    accounts = "SELECT count() AS rows, max(account_version) AS newest FROM operations FINAL GROUP BY account_id"
    whole = f"SELECT sum(rows), countIf(rows != newest) FROM ({accounts})"  # noqa: S608  fixed text
    if (found := await store.tell(whole)) != f"{2 * events}\t0":
        raise BenchError(f"rows and accounts with gaps: {found}, where {2 * events} and 0 were due")
    return CatchUp(rate, idle, _mib(store, "VmHWM"))


def _sample(metrics: str, name: str) -> float:
    return next((float(line.split()[1]) for line in metrics.splitlines() if line.startswith(f"{name} ")), 0.0)


def _mib(store: Store, field: str) -> float:
    """A size from /proc/<pid>/status; 0 where there is no /proc."""
    status = Path(f"/proc/{store.child.pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)


def _insert(port: int, database: str, events: int) -> float:
    """Rows a second of an insert by ClickHouse's own client, in batches that are made before the clock starts, into a
    table like the history's: the best that one Python process can do.
    """
    client = clickhouse_connect.get_client(host=HOST, port=port, database=database)
    try:
        client.command("CREATE TABLE raw AS operations")
        rows = [row for number in range(events) for row in Event(number).rows()]
        batches = [rows[at : at + _INSERT_ROWS] for at in range(0, len(rows), _INSERT_ROWS)]
        began = time.monotonic()
        for batch in batches:
            client.insert("raw", batch)
        return len(rows) / (time.monotonic() - began)
    finally:
        client.close()


async def ingest_vs_raw_insert() -> Figure:
    """Rows a second from the topic into the history, to those of the same rows inserted straight by ClickHouse's own
    client.
    """
    rates: dict[str, list[float]] = {"consumer": [], "raw_insert": []}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wallet-bench-")))
        (clickhouse_port,) = free_ports(1)
        clickhouse = await stack.enter_async_context(ClickHouse(folder / "clickhouse", clickhouse_port))
        for number in range(_ROUNDS):
            async with Kafka(*free_ports(1)) as kafka:
                await _publish(kafka.bootstrap_servers, _FEW)
                shared = settings(folder, Callers(folder), kafka.bootstrap_servers)
                async with Store.open(clickhouse, f"round_{number}", shared) as store:
                    rates["consumer"].append(2 * (await _catch_up(store, _FEW)).events_per_second)
            rates["raw_insert"].append(await asyncio.to_thread(_insert, clickhouse_port, store.database, _FEW))
            consumer, raw = rates["consumer"][-1], rates["raw_insert"][-1]
            print_progress(f"   consumer {consumer:,.0f} rows/s, raw insert {raw:,.0f} rows/s")
    return Figure(
        figure=_INGEST,
        value=max(rates["consumer"]) / max(rates["raw_insert"]),
        unit="ratio",
        bar=0.3,
        details={"rows_per_second": rates, "events": _FEW},
    )


async def catch_up_1m() -> Figure:
    """The most memory that analytics takes while it stores a million events that wait for it on Apache Kafka."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wallet-bench-")))
        clickhouse_port, kafka_port, controller_port = free_ports(3)
        clickhouse = await stack.enter_async_context(ClickHouse(folder / "clickhouse", clickhouse_port))
        try:
            jars = await asyncio.to_thread(fetch_jars)
        except ApacheKafkaUnavailable as error:
            raise BenchError(f"{_CATCH_UP} needs Apache Kafka: {error}") from None
        kafka = await stack.enter_async_context(ApacheKafka(jars, folder / "kafka", kafka_port, controller_port))
        await kafka.create(OPERATIONS_TOPIC)
        await _publish(kafka.bootstrap_servers, _MANY)
        shared = settings(folder, Callers(folder), kafka.bootstrap_servers)
        store = await stack.enter_async_context(Store.open(clickhouse, "history", shared))
        seen = await _catch_up(store, _MANY)
    return Figure(
        figure=_CATCH_UP,
        value=seen.peak_mib,
        unit="MiB",
        better="lower",
        details={"at_start_mib": seen.idle_mib, "events_per_second": seen.events_per_second, "events": _MANY},
    )


async def measure(wanted: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:  # noqa: ARG001
    """See `figure.Part`. Not for so many seconds but for so many events."""
    for name, figure in {_INGEST: ingest_vs_raw_insert, _CATCH_UP: catch_up_1m}.items():
        if name in wanted:
            print_progress(f"{name}: {' '.join((figure.__doc__ or '').split())}")
            yield await figure()
