"""The gateway's process: `python -m gateway`."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from gateway.app import build_app
from gateway.graphql.execution.documents import TrustedDocuments
from gateway.graphql.execution.options import GraphOptions
from gateway.graphql.protection.limits import Limits
from gateway.http.rate_limits import Rate, RateLimiter, RateLimitOptions
from kit.auth.principal import TokenVerifier
from kit.http.admin import admin_app
from kit.http.server import http_server
from kit.rpc.channel import ClientLimits
from kit.rpc.tls import TLS
from kit.runtime.service import run_service
from kit.runtime.settings import Address, AuthSettings, CallSettings, LogSettings, TLSSettings, TracingSettings
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from subgraphs.card.client import CardClient
from subgraphs.identity.client import IdentityClient


class Settings(AuthSettings, CallSettings, TLSSettings, LogSettings, TracingSettings):
    """What the gateway needs to know; each field is the environment variable of its name."""

    gateway_listen: Address = Field("127.0.0.1:8000", description="REST and the graph")
    gateway_admin_listen: Address = Field("127.0.0.1:9100", description="health and metrics")
    bank_grpc_target: str = Field("127.0.0.1:50051", description="the bank's gRPC")
    card_grpc_target: str = Field("127.0.0.1:50052", description="card's gRPC")
    analytics_grpc_target: str = Field("127.0.0.1:50053", description="analytics' gRPC")
    identity_grpc_target: str = Field("127.0.0.1:50054", description="identity's gRPC")
    gateway_timeout_seconds: PositiveFloat = Field(10.0, description="the longest that a request may take")
    gateway_body_limit_bytes: PositiveInt = Field(64 * 1024, description="the largest body taken")
    gateway_graphql_max_cost: PositiveInt = Field(
        Limits.cost, description="the most that it may cost, as estimated by `@cost` and `@listSize`"
    )
    gateway_graphql_trusted_documents: Path | None = Field(
        None,
        description="JSON object of the only documents to execute, by the SHA-256 of each; without it, all are",
    )
    gateway_streams: PositiveInt = Field(
        GraphOptions.streams, description="the most WebSockets and subscriptions that one caller may have open"
    )
    gateway_federation: bool = Field(False, description="serve the graph, and each subgraph alone, to a router")
    gateway_trusted_proxies: list[str] = Field(
        [], description="JSON array of addresses or networks of proxies whose X-Forwarded-For and -Proto are believed"
    )
    gateway_cors_origins: list[str] = Field([], description="JSON array of origins whose pages may call; * for all")
    gateway_rates: bool = Field(True, description="whether anybody may ask for too much")
    gateway_rate_store: str = Field(RateLimitOptions.store, description="memory://, or redis://… that gateways share")
    gateway_rate_requests: Rate = Field(
        RateLimitOptions.requests, description="requests of one caller, and messages on WebSockets"
    )
    gateway_rate_cost: Rate = Field(RateLimitOptions.cost, description="estimated cost of one caller's operations")
    gateway_rate_anonymous: Rate = Field(
        RateLimitOptions.anonymous, description="requests without a token and new WebSockets, of one address"
    )
    gateway_rate_sign_in: Rate = Field(RateLimitOptions.sign_in, description="requests of `/auth/…`, of one address")

    def production_errors(self) -> Iterator[str]:  # noqa: D102  as the base says
        yield from super().production_errors()
        if "*" in self.gateway_cors_origins:
            yield "GATEWAY_CORS_ORIGINS lets every page call: name yours"
        if not self.gateway_rates:
            yield "GATEWAY_RATES lets anybody ask for any amount: leave it out"


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set."""
    tls = TLS.from_settings(settings)
    async with AsyncExitStack() as stack:
        limits = ClientLimits.from_settings(settings)
        bank = BankClient.connect(settings.bank_grpc_target, limits=limits, tls=tls)
        analytics = AnalyticsClient.connect(settings.analytics_grpc_target, limits=limits, tls=tls)
        card = CardClient.connect(settings.card_grpc_target, limits=limits, tls=tls)
        identity = IdentityClient.connect(settings.identity_grpc_target, limits=limits, tls=tls)
        verifier = await stack.enter_async_context(TokenVerifier.open(settings))
        graph = GraphOptions(
            limits=Limits(cost=settings.gateway_graphql_max_cost),
            documents=TrustedDocuments.load(settings.gateway_graphql_trusted_documents),
            streams=settings.gateway_streams,
            production=settings.production,
            federation=settings.gateway_federation,
        )
        app = build_app(
            await stack.enter_async_context(bank),
            await stack.enter_async_context(analytics),
            await stack.enter_async_context(card),
            await stack.enter_async_context(identity),
            verifier,
            await stack.enter_async_context(RateLimiter.connect(_rates(settings))),
            stop,
            cors_origins=settings.gateway_cors_origins,
            body_limit_bytes=settings.gateway_body_limit_bytes,
            timeout_seconds=settings.gateway_timeout_seconds,
            graph=graph,
        )
        await stack.enter_async_context(
            http_server(admin_app({"keys": verifier.check_ready}), settings.gateway_admin_listen)
        )
        server = http_server(
            app,
            settings.gateway_listen,
            trusted_proxies=settings.gateway_trusted_proxies,
            ws_max_size=graph.websocket_limits.message_bytes,
        )
        await stack.enter_async_context(server)
        await stop.wait()


def _rates(settings: Settings) -> RateLimitOptions:
    return RateLimitOptions(
        is_on=settings.gateway_rates,
        store=settings.gateway_rate_store,
        requests=settings.gateway_rate_requests,
        cost=settings.gateway_rate_cost,
        anonymous=settings.gateway_rate_anonymous,
        sign_in=settings.gateway_rate_sign_in,
    )


if __name__ == "__main__":
    run_service("gateway", Settings, serve)
