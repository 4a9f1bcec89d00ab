"""Process of the card service: `python -m subgraphs.card.service`."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Final

from kit.auth.principal import TokenVerifier
from kit.auth.tokens import ServiceTokenProvider, TokenSigner
from kit.db.pool import connections_in_use
from kit.db.postgres import SessionCheck, check_disk, log_failures, raise_unavailable
from kit.http.server import http_server
from kit.integrity.check import integrity_router
from kit.rpc.channel import ClientLimits
from kit.rpc.server import Service
from kit.rpc.tls import TLS
from kit.runtime import process
from kit.runtime.service import run_service, service_ports
from kit.telemetry import metrics
from subgraphs.bank.client import BankClient
from subgraphs.card.service.adapters.acquirer_http import HttpAcquirer, RetryPolicy
from subgraphs.card.service.adapters.attempts import AttemptRepository
from subgraphs.card.service.adapters.bank_ledger import BankLedger
from subgraphs.card.service.adapters.database import LABEL, open_pool
from subgraphs.card.service.adapters.repository import Repository
from subgraphs.card.service.api.admin import decline_router, review_router
from subgraphs.card.service.api.policy import ADMIN, POLICY
from subgraphs.card.service.api.servicer import SERVICE, CardServicer
from subgraphs.card.service.api.webhooks import WebhookInbox, webhook_app
from subgraphs.card.service.application.decline_watch import run_decline_watch
from subgraphs.card.service.application.integrity import top_up_integrity
from subgraphs.card.service.application.saga import Saga, SagaLimits
from subgraphs.card.service.application.service import TopUpOptions, TopUps
from subgraphs.card.service.application.subscription_hub import POLL_SECONDS, SubscriptionHub
from subgraphs.card.service.domain.declines import DeclineLimits
from subgraphs.card.service.domain.rules import Limit
from subgraphs.card.service.settings import Settings

NAME: Final = "card"
"""Name of this service in its tokens and logs."""
_ATTEMPT_MARGIN_SECONDS: Final = 2.0
"""Time for the calls to the bank and the database that a top-up request makes before the top-up is created. The time of
the acquirer's call is added to it."""


_SAGA_LIMITS: Final = SagaLimits()


async def serve(
    settings: Settings,
    stop: asyncio.Event,
    *,
    saga_limits: SagaLimits = _SAGA_LIMITS,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Run the service until `stop` is set. The database, the bank and the acquirer may be unavailable at any time.

    Args:
        settings: settings of the service.
        stop: event that ends the service.
        saga_limits: limits of the saga. Their number of drivers is replaced by the setting `CARD_DRIVERS`.
        poll_seconds: interval at which subscribed top-ups are read even if no notification arrives.
    """
    tls = TLS.from_settings(settings)
    async with AsyncExitStack() as stack:
        url, max_connections = settings.card_database_url.get_secret_value(), settings.card_database_connections
        pool = await stack.enter_async_context(open_pool(url, max_size=max_connections))
        metrics.register_pool(partial(connections_in_use, pool), max_connections)
        repository, attempts = Repository(pool), AttemptRepository(pool)
        client_limits = ClientLimits.from_settings(settings)
        bank = await stack.enter_async_context(
            BankClient.connect(settings.bank_grpc_target, limits=client_limits, tls=tls)
        )
        acquirer = await stack.enter_async_context(
            HttpAcquirer.connect(settings.acquirer_url, settings.acquirer_api_key, _retry_policy(settings))
        )
        signer = TokenSigner.from_file(NAME, settings.service_key_file, settings.auth_audience)
        ledger = BankLedger(bank, ServiceTokenProvider(signer, NAME))
        saga = Saga(repository, acquirer, ledger, replace(saga_limits, drivers=settings.card_drivers))
        hub = SubscriptionHub(repository, poll_seconds=poll_seconds)
        await stack.enter_async_context(saga.running())
        decline_limits = _decline_limits(settings)
        tasks: dict[str, Callable[[], Awaitable[None]]] = {
            "completer": saga.run_completer,
            "leases": saga.renew_leases,
            "top-up metrics": saga.update_metrics,
            "subscriptions": hub.run_listener,
            "decline limits": partial(run_decline_watch, attempts, decline_limits),
        }
        await stack.enter_async_context(process.restarting_tasks(tasks))
        verifier = await stack.enter_async_context(TokenVerifier.open(settings))
        checks = {
            "database": log_failures(partial(_check_database, SessionCheck(url), repository)),
            "disk": check_disk,
            "keys": verifier.check_ready,
        }
        integrity = top_up_integrity(repository, acquirer, ledger, settings.card_limits)
        webhooks = webhook_app(WebhookInbox(repository, saga), settings.acquirer_webhook_secret)
        await stack.enter_async_context(http_server(webhooks, settings.card_webhook_listen))
        options = TopUpOptions(
            {currency: Limit(limit.top_up, limit.day) for currency, limit in settings.card_limits.items()},
            settings.card_fingerprint_secret,
            settings.card_access_seconds,
            decline_limits,
        )
        servicer = CardServicer(TopUps(repository, attempts, acquirer, bank, saga, hub, options), verifier)
        await stack.enter_async_context(
            service_ports(
                grpc_listen=settings.card_grpc_listen,
                admin_listen=settings.card_admin_listen,
                services={SERVICE: Service(servicer.register, POLICY)},
                verifier=verifier,
                tls=tls,
                checks=checks,
                admin_policy=ADMIN,
                admin_routers=[
                    integrity_router(integrity),
                    review_router(repository, saga),
                    decline_router(attempts, decline_limits),
                ],
            )
        )
        stack.callback(hub.close)  # before the gRPC server stops: open streams would delay its end
        await stop.wait()


async def _check_database(sessions: SessionCheck, repository: Repository) -> None:
    with raise_unavailable(LABEL):
        await sessions.check()
    await repository.ping()


def _retry_policy(settings: Settings) -> RetryPolicy:
    return RetryPolicy(
        timeout_seconds=settings.acquirer_timeout_seconds,
        attempts=settings.acquirer_attempts,
        budget_seconds=settings.acquirer_budget_seconds,
        circuit_failures=settings.acquirer_circuit_failures,
        circuit_seconds=settings.acquirer_circuit_seconds,
    )


def _decline_limits(settings: Settings) -> DeclineLimits:
    return DeclineLimits(
        per_customer=settings.card_declines_per_customer,
        per_address=settings.card_declines_per_address,
        per_shared_address=settings.card_declines_per_shared_address,
        per_card=settings.card_declines_per_card,
        window_seconds=settings.card_decline_window_seconds,
        attempt_seconds=settings.acquirer_timeout_seconds + settings.acquirer_budget_seconds + _ATTEMPT_MARGIN_SECONDS,
        shared_networks=tuple(settings.card_shared_networks),
    )


if __name__ == "__main__":
    run_service(NAME, Settings, serve)
