"""Process of analytics: `python -m subgraphs.analytics.service`."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from kit.auth.principal import TokenVerifier
from kit.auth.tokens import ServiceTokenProvider, TokenSigner
from kit.integrity.check import integrity_router
from kit.rpc.channel import ClientLimits
from kit.rpc.server import Service
from kit.rpc.tls import TLS
from kit.runtime import process
from kit.runtime.service import run_service, service_ports
from subgraphs.analytics.service.adapters.bank_ledger import BankLedger
from subgraphs.analytics.service.adapters.clickhouse.copies import Copies
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.epochs import EpochTables
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.adapters.kafka import KafkaClients
from subgraphs.analytics.service.api.admin import replay_router
from subgraphs.analytics.service.api.policy import ADMIN, POLICY
from subgraphs.analytics.service.api.servicer import SERVICE, AnalyticsServicer
from subgraphs.analytics.service.application.account_owners import AccountOwners
from subgraphs.analytics.service.application.consumer import Consumer, ConsumerLimits
from subgraphs.analytics.service.application.epoch import EpochFollower
from subgraphs.analytics.service.application.integrity import history_integrity
from subgraphs.analytics.service.application.live_consumer import LiveConsumer
from subgraphs.analytics.service.application.repair import PERIOD_SECONDS, Repair
from subgraphs.analytics.service.application.replay import Replay
from subgraphs.analytics.service.application.service import Analytics
from subgraphs.analytics.service.application.subscription_hub import HubLimits, SubscriptionHub
from subgraphs.analytics.service.settings import Settings
from subgraphs.bank.client import BankClient

NAME: Final = "analytics"
"""Name of the service in its tokens and logs, and id of its Kafka consumer group."""


_GRACE_SECONDS: Final = 5.0
"""Time that the repair waits for a missing event from the topic before it reads the operation from the bank."""


async def serve(settings: Settings, stop: asyncio.Event, *, grace_seconds: float = _GRACE_SECONDS) -> None:
    """Run analytics until `stop` is set. ClickHouse, Kafka and the bank may be unavailable at any time.

    Args:
        settings: settings of the process.
        stop: event that ends the process.
        grace_seconds: time that the repair waits for a missing event from the topic before it reads the operation from
            the bank.
    """
    tls = TLS.from_settings(settings)
    kafka = KafkaClients(settings.kafka_bootstrap_servers, NAME, settings.analytics_session_seconds)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.connect(settings.clickhouse_dsn.get_secret_value()))
        history, copies = History(database), Copies(database)
        limits = ClientLimits.from_settings(settings)
        bank = await stack.enter_async_context(BankClient.connect(settings.bank_grpc_target, limits=limits, tls=tls))
        signer = TokenSigner.from_file(NAME, settings.service_key_file, settings.auth_audience)
        ledger = BankLedger(bank, ServiceTokenProvider(signer, NAME))
        epochs = EpochFollower(EpochTables(database), ledger)
        repair = Repair(history, ledger, epochs, grace_seconds=grace_seconds)
        hub_limits = HubLimits(access_interval_seconds=settings.analytics_watch_access_seconds)
        hub = SubscriptionHub(history, ledger, bank, repair, hub_limits)
        epochs.on_rebuilt.append(repair.suspect_all)
        epochs.on_restored.append(hub.end_epoch)
        epochs.on_new_incarnation.append(repair.suspect_all)
        live_consumer = LiveConsumer(hub, kafka.live_consumer, kafka.admin_client)
        consumer_limits = ConsumerLimits(batch_size=settings.analytics_batch)
        consumer = Consumer(history, repair, partial(kafka.group_consumer, NAME), kafka.producer, consumer_limits)
        tasks = {
            "epoch": epochs.run,
            "live consumer": live_consumer.run,
            "subscription checks": hub.run_checks,
            "repair": repair.run,
        }
        await stack.enter_async_context(process.restarting_tasks(tasks))
        await stack.enter_async_context(process.background_task(consumer.run(), "consumer"))
        integrity = history_integrity(
            copies,
            ledger,
            wait_seconds=grace_seconds,
            # After this time the repair has inserted the operation, if the topic has not delivered it.
            max_delay_seconds=2 * PERIOD_SECONDS + grace_seconds,
        )
        verifier = await stack.enter_async_context(TokenVerifier.open(settings))
        checks = {"clickhouse": database.ping, "kafka": live_consumer.ping, "keys": verifier.check_ready}
        replay = Replay(history, copies, ledger, repair)
        servicer = AnalyticsServicer(Analytics(history, ledger, epochs, hub, AccountOwners(bank)))
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
        stack.callback(hub.close)  # before the gRPC server stops: open streams would delay its end
        await stop.wait()


if __name__ == "__main__":
    run_service(NAME, Settings, serve)
