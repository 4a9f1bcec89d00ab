"""Process of the bank: `python -m subgraphs.bank.service`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import asyncpg
from aiokafka import AIOKafkaProducer

from kit.auth.principal import TokenVerifier
from kit.db.pool import connections_in_use
from kit.db.postgres import check_disk, log_failures
from kit.integrity.check import integrity_router
from kit.rpc.server import Service
from kit.rpc.tls import TLS
from kit.runtime import process
from kit.runtime.service import run_service, service_ports
from kit.telemetry import metrics
from subgraphs.bank.service.adapters.postgres.accounts import Accounts
from subgraphs.bank.service.adapters.postgres.database import open_pool
from subgraphs.bank.service.adapters.postgres.epoch import Epochs
from subgraphs.bank.service.adapters.postgres.reader import Reader
from subgraphs.bank.service.adapters.postgres.replica import Replica
from subgraphs.bank.service.adapters.postgres.sessions import Sessions
from subgraphs.bank.service.api.admin import epoch_router, redating_router
from subgraphs.bank.service.api.policy import ADMIN, POLICY
from subgraphs.bank.service.api.servicer import SERVICE, BankServicer
from subgraphs.bank.service.application.group_commit import Pipeline
from subgraphs.bank.service.application.integrity import ledger_integrity
from subgraphs.bank.service.application.ledger import Ledger
from subgraphs.bank.service.application.outbox_relay import OutboxRelay
from subgraphs.bank.service.application.redating import Redating
from subgraphs.bank.service.application.service import Bank
from subgraphs.bank.service.settings import Settings

_DIRECT_CONNECTIONS: Final = 4
"""Connections without a pooler: one each for the outbox leader, the backlog's metrics, an integrity check and a
redating.
"""


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the bank until `stop` is set."""
    create_producer = partial(
        AIOKafkaProducer,
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id="bank",
        enable_idempotence=True,
        acks="all",
        request_timeout_ms=10_000,
    )
    tls = TLS.from_settings(settings)
    async with AsyncExitStack() as stack:
        url, direct_url = settings.bank_database_url, settings.bank_database_direct_url
        is_shared = direct_url is not None  # then the other URLs lead to a pooler in transaction mode
        pool = await stack.enter_async_context(
            open_pool(url.get_secret_value(), max_size=settings.bank_database_connections, shares_sessions=is_shared),
        )
        direct_pool = pool
        if direct_url is not None:
            direct_pool = await stack.enter_async_context(
                open_pool(direct_url.get_secret_value(), max_size=_DIRECT_CONNECTIONS)
            )
        metrics.register_pool(partial(connections_in_use, pool), pool.get_max_size())
        sessions = Sessions((direct_url or url).get_secret_value(), pool if is_shared else None)
        reader = Reader(pool, await stack.enter_async_context(_open_replica(settings, pool)))
        relay = OutboxRelay(direct_pool, create_producer, sessions.check)
        pipeline = Pipeline(Ledger(pool, on_commit=relay.wake).commit)
        epochs = Epochs(pool)
        verifier = await stack.enter_async_context(TokenVerifier.open(settings))
        servicer = BankServicer(Bank(pipeline, reader, Accounts(pool), epochs), verifier)
        await stack.enter_async_context(process.background_task(pipeline.run(), "pipeline"))
        await stack.enter_async_context(process.restarting_tasks({"relay": relay.run, "backlog": relay.measure}))
        checks = {
            "database": log_failures(partial(_check_database, sessions, reader)),
            "disk": check_disk,
            "keys": verifier.check_ready,
        }
        await stack.enter_async_context(
            service_ports(
                grpc_listen=settings.bank_grpc_listen,
                admin_listen=settings.bank_admin_listen,
                services={SERVICE: Service(servicer.register, POLICY)},
                verifier=verifier,
                tls=tls,
                checks=checks,
                admin_policy=ADMIN,
                admin_routers=[
                    integrity_router(ledger_integrity(direct_pool)),
                    redating_router(Redating(direct_pool)),
                    epoch_router(epochs),
                ],
            )
        )
        await stop.wait()


@asynccontextmanager
async def _open_replica(settings: Settings, primary: asyncpg.Pool) -> AsyncIterator[Replica | None]:
    """Open the read replica if one is configured. It need not be reachable yet."""
    if settings.bank_database_read_url is None:
        yield None
        return
    url = settings.bank_database_read_url.get_secret_value()
    is_shared = settings.bank_database_direct_url is not None
    async with open_pool(url, max_size=settings.bank_database_connections, shares_sessions=is_shared) as pool:
        yield Replica(pool, primary)


async def _check_database(sessions: Sessions, reader: Reader) -> None:
    await sessions.check()
    await reader.ping()


if __name__ == "__main__":
    run_service("bank", Settings, serve)
