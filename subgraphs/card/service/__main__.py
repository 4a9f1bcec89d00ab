"""The card service's process: `python -m subgraphs.card.service`."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, Field, PositiveFloat, PositiveInt, SecretStr
from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from kit.auth.principal import TokenVerifier
from kit.auth.tokens import ServiceTokenProvider, TokenSigner
from kit.http.server import http_server
from kit.integrity.check import integrity_router
from kit.rpc.channel import ClientLimits
from kit.rpc.server import Service
from kit.rpc.tls import TLS
from kit.runtime import process
from kit.runtime.service import run_service, service_ports
from kit.runtime.settings import Address, CallSettings, LogSettings, ServiceSettings, TLSSettings, TracingSettings
from kit.telemetry import metrics
from subgraphs.bank.client import BankClient
from subgraphs.card.service.adapters.acquirer_http import HttpAcquirer, Patience
from subgraphs.card.service.adapters.bank_ledger import Ledger
from subgraphs.card.service.adapters.repository import Repository, open_database
from subgraphs.card.service.api.admin import review_router
from subgraphs.card.service.api.policy import ADMIN, POLICY
from subgraphs.card.service.api.servicer import SERVICE, CardServicer
from subgraphs.card.service.api.webhooks import Inbox, webhook_app
from subgraphs.card.service.application.integrity import top_up_integrity
from subgraphs.card.service.application.saga import Saga, Timing
from subgraphs.card.service.application.service import Cards, Terms
from subgraphs.card.service.application.subscription_hub import Watch
from subgraphs.card.service.domain.rules import Limit

NAME: Final = "card"
"""Of the service, as other services know it."""

SANDBOX_KEY: Final = "sandbox_"
"""What the API keys of a sandbox acquirer begin with."""

_PATIENCE: Final = Patience()
_TIMING: Final = Timing()


class LimitSetting(BaseModel):
    """How much may be paid in by card, in units of the currency."""

    top_up: Decimal = Field(gt=0, description="in one top-up")
    day: Decimal = Field(gt=0, description="by one caller in 24 hours")


def _webhook_secret(value: SecretStr) -> SecretStr:
    try:
        Webhook(value.get_secret_value())
    except (EmptyWebhookSecretError, ValueError):
        raise ValueError("is whsec_… with a secret in Base64") from None
    return value


class Settings(ServiceSettings, CallSettings, TLSSettings, LogSettings, TracingSettings):
    """What the card service needs to know; each field is the environment variable of its name."""

    card_grpc_listen: Address = Field("127.0.0.1:50052", description="gRPC")
    card_admin_listen: Address = Field("127.0.0.1:9102", description="health, metrics, the proof, what needs a person")
    card_webhook_listen: Address = Field("127.0.0.1:8091", description="where the acquirer's webhooks come in")
    card_database_url: SecretStr = Field(description="postgresql://…")
    card_database_connections: PositiveInt = Field(10, description="at most, of this process; one of them listens")
    bank_grpc_target: str = Field("127.0.0.1:50051", description="the bank's gRPC")

    acquirer_url: str = Field(description="http://…, without a path")
    acquirer_api_key: SecretStr = Field(description="what the acquirer knows this merchant by")
    acquirer_webhook_secret: Annotated[SecretStr, AfterValidator(_webhook_secret)] = Field(description="whsec_…")
    acquirer_timeout_seconds: PositiveFloat = Field(_PATIENCE.timeout_seconds, description="for one answer")
    acquirer_attempts: PositiveInt = Field(_PATIENCE.attempts, description="at one call, by the same key")
    acquirer_budget_seconds: PositiveFloat = Field(_PATIENCE.budget_seconds, description="after which none is begun")
    acquirer_circuit_failures: PositiveInt = Field(_PATIENCE.failures, description="in a row, which open the circuit")
    acquirer_circuit_seconds: PositiveFloat = Field(_PATIENCE.open_seconds, description="until it is tried again")

    card_limits: dict[str, LimitSetting] = Field(
        {"RUB": LimitSetting(top_up=Decimal(100_000), day=Decimal(300_000))},
        description="JSON object by currency; a currency that is not in it is not paid in by card",
    )
    card_fingerprint_secret: SecretStr = Field(
        min_length=32, description="keys the fingerprints of requests; changing it makes conflicts of repeated ones"
    )
    card_answer_seconds: PositiveFloat = Field(2.5, description="how long a caller is let wait for the end")
    card_poll_seconds: PositiveFloat = Field(
        2.0, description="how often a watched top-up is looked at, notified or not"
    )
    card_access_seconds: PositiveFloat = Field(
        60.0, description="how often the bank is asked again whether a watcher may still see the account"
    )
    card_interval_seconds: PositiveFloat = Field(_TIMING.interval_seconds, description="the completer's")
    card_lease_seconds: PositiveFloat = Field(
        _TIMING.lease_seconds, description="after which a driver that does not renew its lease counts as dead"
    )
    card_first_pause_seconds: PositiveFloat = Field(
        _TIMING.first_pause_seconds, description="before a step is tried again, doubled each time"
    )
    card_longest_pause_seconds: PositiveFloat = Field(_TIMING.longest_pause_seconds, description="of these, at most")
    card_authorization_window_seconds: PositiveFloat = Field(
        _TIMING.authorization_window_seconds, description="after a request in which its card may be charged"
    )
    card_captures: PositiveInt = Field(_TIMING.captures, description="that may fail before the sum is let go of")
    card_drivers: PositiveInt = Field(
        _TIMING.drivers, description="top-ups that are taken up again at once, besides those that callers begin"
    )

    def production_errors(self) -> Iterator[str]:  # noqa: D102  as the base says
        yield from super().production_errors()
        if self.acquirer_api_key.get_secret_value().startswith(SANDBOX_KEY):
            yield "ACQUIRER_API_KEY is one of a sandbox, which moves no money: use the acquirer's own"
        if not self.acquirer_url.startswith("https://"):
            yield "ACQUIRER_URL would send cards in the clear: use https://"


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set. The database, the bank and the acquirer may come, go and come back meanwhile."""
    tls = TLS.from_settings(settings)
    async with AsyncExitStack() as stack:
        url, connections = settings.card_database_url.get_secret_value(), settings.card_database_connections
        database = await stack.enter_async_context(open_database(url, max_connections=connections))
        metrics.register_pool(database.connections_in_use, connections)
        repository = Repository(database)
        limits = ClientLimits.from_settings(settings)
        bank = await stack.enter_async_context(BankClient.connect(settings.bank_grpc_target, limits=limits, tls=tls))
        patience = Patience(
            settings.acquirer_timeout_seconds,
            settings.acquirer_attempts,
            settings.acquirer_budget_seconds,
            settings.acquirer_circuit_failures,
            settings.acquirer_circuit_seconds,
        )
        acquirer = await stack.enter_async_context(
            HttpAcquirer.connect(settings.acquirer_url, settings.acquirer_api_key, patience)
        )
        signer = TokenSigner.from_file(NAME, settings.service_key_file, settings.auth_audience)
        timing = Timing(
            interval_seconds=settings.card_interval_seconds,
            lease_seconds=settings.card_lease_seconds,
            first_pause_seconds=settings.card_first_pause_seconds,
            longest_pause_seconds=settings.card_longest_pause_seconds,
            authorization_window_seconds=settings.card_authorization_window_seconds,
            captures=settings.card_captures,
            drivers=settings.card_drivers,
        )
        ledger = Ledger(bank, ServiceTokenProvider(signer, NAME))
        saga = Saga(repository, acquirer, ledger, timing)
        watch = Watch(repository, poll_seconds=settings.card_poll_seconds)
        await stack.enter_async_context(saga.running())
        steps = {"completer": saga.complete, "leases": saga.hold, "tallies": saga.measure, "watch": watch.run}
        await stack.enter_async_context(process.restarting_tasks(steps))
        verifier = await stack.enter_async_context(TokenVerifier.open(settings))
        checks = {"database": repository.ping, "keys": verifier.check_ready}
        integrity = top_up_integrity(repository, acquirer, ledger, settings.card_limits)
        webhooks = webhook_app(Inbox(repository, saga), settings.acquirer_webhook_secret)
        await stack.enter_async_context(http_server(webhooks, settings.card_webhook_listen))
        terms = Terms(
            {currency: Limit(limit.top_up, limit.day) for currency, limit in settings.card_limits.items()},
            settings.card_fingerprint_secret,
            settings.card_answer_seconds,
            settings.card_access_seconds,
        )
        servicer = CardServicer(Cards(repository, acquirer, bank, saga, watch, terms))
        await stack.enter_async_context(
            service_ports(
                grpc_listen=settings.card_grpc_listen,
                admin_listen=settings.card_admin_listen,
                services={SERVICE: Service(servicer.register, POLICY)},
                verifier=verifier,
                tls=tls,
                checks=checks,
                admin_policy=ADMIN,
                admin_routers=[integrity_router(integrity), review_router(repository, saga)],
            )
        )
        stack.callback(watch.close)  # before the server stops, or its open streams would use up its grace
        await stop.wait()


if __name__ == "__main__":
    run_service(NAME, Settings, serve)
