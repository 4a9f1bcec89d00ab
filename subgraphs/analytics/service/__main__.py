"""Analytics' process: `python -m subgraphs.analytics.service`."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from pydantic import Field, PositiveFloat, PositiveInt, SecretStr

from kit.auth.principal import TokenVerifier
from kit.auth.tokens import ServiceTokenProvider, TokenSigner
from kit.integrity.check import integrity_router
from kit.rpc.channel import ClientLimits
from kit.rpc.server import Service
from kit.rpc.tls import TLS
from kit.runtime import process
from kit.runtime.service import run_service, service_ports
from kit.runtime.settings import Address, CallSettings, LogSettings, ServiceSettings, TLSSettings, TracingSettings
from subgraphs.analytics.service.adapters.clickhouse.copies import Copies
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.adapters.ledger import Ledger
from subgraphs.analytics.service.api.admin import replay_router
from subgraphs.analytics.service.api.policy import ADMIN, POLICY
from subgraphs.analytics.service.api.servicer import SERVICE, AnalyticsServicer
from subgraphs.analytics.service.application.access import Access
from subgraphs.analytics.service.application.consumer import Consumer, Limits
from subgraphs.analytics.service.application.integrity import history_integrity
from subgraphs.analytics.service.application.repair import Repair
from subgraphs.analytics.service.application.replay import Replay
from subgraphs.analytics.service.application.service import Analytics
from subgraphs.analytics.service.application.tail import Tail
from subgraphs.analytics.service.application.watch import Timing, Watch
from subgraphs.bank.client import BankClient

NAME: Final = "analytics"
"""Of the consumer group, and of the service as other services know it."""

_FETCH_MS: Final = 50
"""How long the broker may hold a fetch open. Kafka answers as soon as there is something; the embedded broker only when
the time is up, which makes this the delay of every event.
"""

_LIMITS: Final = Limits()
_TIMING: Final = Timing()
_NEVER_IDLE_MS: Final = 24 * 3600 * 1000
"""A member that waits for ClickHouse to come back polls nothing. It keeps its place for as long as it heartbeats."""


class Settings(ServiceSettings, CallSettings, TLSSettings, LogSettings, TracingSettings):
    """What analytics needs to know; each field is the environment variable of its name."""

    analytics_grpc_listen: Address = Field("127.0.0.1:50053", description="gRPC")
    analytics_admin_listen: Address = Field("127.0.0.1:9103", description="health, metrics, the proof, replay")
    clickhouse_dsn: SecretStr = Field(description="http://user:password@host:port/database")
    kafka_bootstrap_servers: str = Field(description="host:port, or several with commas")
    bank_grpc_target: str = Field("127.0.0.1:50051", description="the bank's gRPC")
    analytics_session_seconds: PositiveFloat = Field(6.0, description="after which silence the group gives a member up")
    analytics_batch: PositiveInt = Field(_LIMITS.batch, description="messages in one insert, at most")
    analytics_linger_seconds: float = Field(_LIMITS.linger_seconds, description="how long a batch waits for more")
    analytics_unreadable_limit: int = Field(_LIMITS.unreadable, description="dead letters in a thousand messages")
    analytics_repair_seconds: PositiveFloat = Field(
        60.0, description="how often the history is compared with the ledger"
    )
    analytics_repair_grace_seconds: float = Field(5.0, description="how long an event may be on its way")
    analytics_watch_check_seconds: PositiveFloat = Field(
        _TIMING.check_seconds,
        description="how often watched accounts are compared with the ledger",
    )
    analytics_watch_access_seconds: PositiveFloat = Field(
        _TIMING.access_seconds,
        description="how often the bank is asked again whether a watcher may still read",
    )


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set. ClickHouse, Kafka and the bank may come, go and come back meanwhile."""
    tls = TLS.from_settings(settings)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.connect(settings.clickhouse_dsn.get_secret_value()))
        history, copies = History(database), Copies(database)
        limits = ClientLimits.from_settings(settings)
        bank = await stack.enter_async_context(BankClient.connect(settings.bank_grpc_target, limits=limits, tls=tls))
        signer = TokenSigner.from_file(NAME, settings.service_key_file, settings.auth_audience)
        ledger = Ledger(bank, ServiceTokenProvider(signer, NAME))
        repair = Repair(
            history,
            ledger,
            period_seconds=settings.analytics_repair_seconds,
            grace_seconds=settings.analytics_repair_grace_seconds,
        )
        timing = Timing(
            check_seconds=settings.analytics_watch_check_seconds,
            access_seconds=settings.analytics_watch_access_seconds,
        )
        watch = Watch(history, ledger, bank, repair, timing)
        tail = Tail(watch, partial(_reader, settings, "tail"), partial(_admin, settings))
        consumer = Consumer(
            history,
            repair,
            partial(_reader, settings, "store", group=NAME),
            partial(_producer, settings),
            Limits(
                batch=settings.analytics_batch,
                linger_seconds=settings.analytics_linger_seconds,
                unreadable=settings.analytics_unreadable_limit,
            ),
        )
        tasks = {"tail": tail.run, "watch": watch.check, "repair": repair.run}
        await stack.enter_async_context(process.restarting_tasks(tasks))
        await stack.enter_async_context(process.background_task(consumer.run(), "consumer"))
        integrity = history_integrity(
            copies,
            ledger,
            wait_seconds=settings.analytics_repair_grace_seconds,
            # By then the repair, too, has come by: it may have waited for its turn, and for the grace.
            on_its_way_seconds=2 * settings.analytics_repair_seconds + settings.analytics_repair_grace_seconds,
        )
        verifier = await stack.enter_async_context(TokenVerifier.open(settings))
        checks = {"clickhouse": database.ping, "kafka": tail.ping, "keys": verifier.check_ready}
        replay = Replay(history, copies, ledger, repair)
        servicer = AnalyticsServicer(Analytics(history, ledger, watch, Access(bank)))
        await stack.enter_async_context(
            service_ports(
                grpc_listen=settings.analytics_grpc_listen,
                admin_listen=settings.analytics_admin_listen,
                services={SERVICE: Service(servicer.register, POLICY)},
                verifier=verifier,
                tls=tls,
                checks=checks,
                admin_policy=ADMIN,
                admin_routers=[integrity_router(integrity), replay_router(replay)],
            )
        )
        stack.callback(watch.close)  # before the server stops, or its open streams would use up its grace
        await stop.wait()


def _reader(settings: Settings, name: str, group: str | None = None) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id=f"{NAME}-{name}",
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=int(settings.analytics_session_seconds * 1000),
        heartbeat_interval_ms=int(settings.analytics_session_seconds * 1000 / 4),
        max_poll_interval_ms=_NEVER_IDLE_MS,
        fetch_max_wait_ms=_FETCH_MS,
        request_timeout_ms=int(settings.analytics_session_seconds * 1000) + 5_000,  # joining may take a session
        metadata_max_age_ms=5_000,  # a topic that is made later is noticed as soon
    )


def _producer(settings: Settings) -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, client_id=NAME, acks="all")


def _admin(settings: Settings) -> AIOKafkaAdminClient:
    return AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id=NAME,
        request_timeout_ms=5_000,
    )


if __name__ == "__main__":
    run_service(NAME, Settings, serve)
