"""Environment of analytics in tests: a real broker, a real ClickHouse, and a fake bank with real gRPC."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from asyncapi.topics import DEAD_LETTER_TOPIC, OPERATIONS_TOPIC
from kit.auth.principal import Principal
from kit.rpc import request_context
from stack.engines.children import ClickHouse
from subgraphs.analytics.service import __main__ as main
from subgraphs.analytics.service.adapters.bank_ledger import BankLedger
from subgraphs.analytics.service.adapters.clickhouse.copies import Copies
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.epochs import EpochTables
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.adapters.kafka import KafkaClients
from subgraphs.analytics.service.application.consumer import Consumer, ConsumerLimits
from subgraphs.analytics.service.application.epoch import EpochFollower
from subgraphs.analytics.service.application.live_consumer import LiveConsumer
from subgraphs.analytics.service.application.repair import Repair
from subgraphs.analytics.service.application.subscription_hub import HubLimits, SubscriptionHub
from subgraphs.analytics.service.domain.model import Event, OperationType
from subgraphs.analytics.service.settings import Settings
from subgraphs.bank.client import BankClient
from tests.conftest import Keys
from tests.integration.analytics.fake_bank import FakeBank
from tests.kafka.brokers import Broker
from tests.waiting import until
from wallet.errors import Unavailable

GRACE_SECONDS = 0.2
"""Time for which the repair waits for a missing event. It is shorter than in production."""
CE_TYPES = {OperationType.TRANSFER: "wallet.transfer.completed", OperationType.TOP_UP: "wallet.topup.completed"}


def body(event: Event) -> dict[str, Any]:
    """Return the event as the JSON of the topic."""
    sides = {
        name: {
            "accountId": str(side.account_id),
            "version": side.version,
            "balanceAfter": str(side.balance_after),
        }
        for name, side in (("sender", event.sender), ("recipient", event.recipient))
    }
    return {
        "transferId": str(event.id),
        "occurredAt": event.occurred_at.isoformat(),
        "amount": str(event.amount),
        "currency": event.amount.currency,
        **sides,
    }


def headers(event: Event) -> list[tuple[str, bytes]]:
    """Return the event's CloudEvents headers."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(event.id).encode()),
        ("ce_source", b"/wallet/bank"),
        ("ce_type", CE_TYPES[event.type].encode()),
        ("ce_time", event.occurred_at.isoformat().encode()),
        ("content-type", b"application/json"),
    ]


@dataclass(frozen=True)
class AnalyticsEnvironment:
    """Broker, database and bank of one test, and factories of the parts of analytics."""

    bank: FakeBank
    bank_client: BankClient
    clickhouse: ClickHouse
    kafka: Broker
    database: Database
    ledger: BankLedger
    settings: Settings
    keys: Keys
    producer: AIOKafkaProducer

    @property
    def kafka_clients(self) -> KafkaClients:
        return KafkaClients(self.kafka.bootstrap_servers, main.NAME, self.settings.analytics_session_seconds)

    @property
    def history(self) -> History:
        return History(self.database)

    @property
    def epochs(self) -> EpochFollower:
        return EpochFollower(EpochTables(self.database), self.ledger)

    @property
    def copies(self) -> Copies:
        return Copies(self.database)

    def repair(self, *, grace_seconds: float = 0.05, period_seconds: float = 3600.0) -> Repair:
        return Repair(
            self.history, self.ledger, self.epochs, grace_seconds=grace_seconds, period_seconds=period_seconds
        )

    def hub(self, repair: Repair | None = None, limits: HubLimits | None = None) -> SubscriptionHub:
        limits = limits or HubLimits(gap_timeout_seconds=0.05, check_interval_seconds=3600)
        return SubscriptionHub(self.history, self.ledger, self.bank_client, repair or self.repair(), limits)

    def live_consumer(self, hub: SubscriptionHub) -> LiveConsumer:
        return LiveConsumer(hub, self.kafka_clients.live_consumer, self.kafka_clients.admin_client)

    def consumer(
        self,
        limits: ConsumerLimits | None = None,
        *,
        repair: Repair | None = None,
        history: History | None = None,
    ) -> Consumer:
        return Consumer(
            history or self.history,
            repair or self.repair(),
            partial(self.kafka_clients.group_consumer, main.NAME),
            self.kafka_clients.producer,
            limits or ConsumerLimits(),
        )

    async def publish(self, *events: Event, partition: int | None = None) -> None:
        for event in events:
            key = str(event.sender.account_id).encode()
            await self.publish_raw(json.dumps(body(event)).encode(), headers(event), key=key, partition=partition)

    async def publish_raw(
        self,
        value: bytes,
        with_headers: list[tuple[str, bytes]],
        *,
        key: bytes = b"key",
        partition: int | None = None,
    ) -> None:
        await self.producer.send_and_wait(OPERATIONS_TOPIC, value, key=key, headers=with_headers, partition=partition)

    async def stored_versions(self, account_id: UUID) -> list[int]:
        return [row.account_version for row in await self.history.list_after(account_id, 0, 10_000)]

    async def until_stored(self, account_id: UUID, versions: list[int], within: float = 10.0) -> None:
        """Wait until exactly these versions of the account are stored."""

        async def is_equal() -> bool:
            return await self.stored_versions(account_id) == versions

        await until(is_equal, within=within)

    async def read_dead_letters(self, count: int) -> list[Any]:
        """Return the first `count` dead letters."""
        reader = AIOKafkaConsumer(
            DEAD_LETTER_TOPIC, bootstrap_servers=self.kafka.bootstrap_servers, auto_offset_reset="earliest"
        )
        async with asyncio.timeout(10), reader:
            return [await reader.getone() for _ in range(count)]

    async def committed(self) -> int:
        """Return the number of messages whose offsets the consumer group has committed."""
        reader = AIOKafkaConsumer(
            bootstrap_servers=self.kafka.bootstrap_servers, group_id=main.NAME, enable_auto_commit=False
        )
        async with reader:
            return sum([await reader.committed(TopicPartition(OPERATIONS_TOPIC, part)) or 0 for part in range(4)])

    async def until_committed(self, count: int, within: float = 10.0) -> None:
        """Wait until the consumer group has committed the offsets of exactly `count` messages."""

        async def is_equal() -> bool:
            return await self.committed() == count

        try:
            await until(is_equal, within=within)
        except AssertionError:
            raise AssertionError(f"{await self.committed()} messages committed, expected {count}") from None

    @contextmanager
    def as_user(self, name: str) -> Iterator[None]:
        """Make calls in the block with the token of this user."""
        principal = Principal("test", name, is_service=False, expires_at=inf)
        context = request_context.RequestContext("test", principal, self.keys.user(name))
        reset = request_context.current_request.set(context)
        try:
            yield
        finally:
            request_context.current_request.reset(reset)


async def lose_history(env: AnalyticsEnvironment, epochs: EpochFollower) -> None:
    """Drop the table of the history, and wait until analytics has created it again."""
    await env.database.command("DROP TABLE operations", {})
    with pytest.raises(Unavailable):
        await env.database.ping()
    await env.database.ping()
    assert await epochs.refresh() == ""


@asynccontextmanager
async def background(task: Coroutine[Any, Any, None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Run a task while the block runs, then cancel it. Raise the task's error, if any, at the end of the block."""
    running = asyncio.create_task(task)
    try:
        yield running
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@asynccontextmanager
async def run_analytics(settings: Settings) -> AsyncIterator[None]:
    """Run analytics in this process, ready when the block starts, and stop it at the end of the block."""
    stop = asyncio.Event()
    running = asyncio.create_task(main.serve(settings, stop, grace_seconds=GRACE_SECONDS))

    async def is_ready() -> bool:
        assert not running.done(), running.result()
        async with httpx.AsyncClient(base_url=f"http://{settings.analytics_admin_listen}", trust_env=False) as http:
            try:
                return (await http.get("/health/ready")).status_code == 200
            except httpx.TransportError:
                return False

    try:
        await until(is_ready)
        yield
    finally:
        stop.set()
        await asyncio.wait_for(running, 10)


def make_settings(keys: Keys, folder: Path, clickhouse_dsn: str, **more: Any) -> Settings:
    """Return settings of one test, and write the keys to a folder."""
    jwks, service_jwks, private = folder / "users.json", folder / "analytics.json", folder / "analytics.pem"
    jwks.write_text(keys.jwks("https://users.test"))
    service_jwks.write_text(keys.jwks("analytics"))
    key = keys.signers["analytics"]._key
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Settings(
        auth_issuer="https://users.test",
        auth_jwks=jwks,
        auth_audience="wallet",
        auth_services={"analytics": service_jwks},
        clickhouse_dsn=clickhouse_dsn,
        service_key_file=private,
        analytics_session_seconds=1.0,
        **more,
    )


async def until_equal(probe: Callable[[], int], expected: int, within: float = 10.0) -> None:
    """Wait until the probe returns the expected number."""

    async def is_equal() -> bool:
        return probe() == expected

    await until(is_equal, within=within)
