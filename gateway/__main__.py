"""Process of the gateway: `python -m gateway`."""

import asyncio
from contextlib import AsyncExitStack

import structlog

from gateway.app import build_app
from gateway.graphql.execution.options import GraphOptions
from gateway.graphql.protection.limits import Limits
from gateway.graphql.protection.trusted_documents import TrustedDocuments
from gateway.http.rate_limits import RateLimiter
from gateway.settings import Settings
from kit.auth.principal import TokenVerifier
from kit.auth.tokens import ServiceTokenProvider, TokenSigner
from kit.http.admin import admin_app
from kit.http.server import http_server
from kit.rpc.channel import ClientLimits
from kit.rpc.client_address import GATEWAY
from kit.rpc.tls import TLS
from kit.runtime.service import run_service
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from subgraphs.card.client import CardClient
from subgraphs.identity.client import IdentityClient

log = structlog.get_logger(__name__)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    tls = TLS.from_settings(settings)
    async with AsyncExitStack() as stack:
        limits = ClientLimits.from_settings(settings)
        gateway_token = _gateway_token(settings)
        bank = BankClient.connect(
            settings.bank_grpc_target,
            limits=limits,
            tls=tls,
            gateway_token=gateway_token if settings.gateway_forward_transfers else None,
        )
        analytics = AnalyticsClient.connect(settings.analytics_grpc_target, limits=limits, tls=tls)
        card = CardClient.connect(settings.card_grpc_target, limits=limits, tls=tls, gateway_token=gateway_token)
        identity = IdentityClient.connect(settings.identity_grpc_target, limits=limits, tls=tls)
        verifier = await stack.enter_async_context(TokenVerifier.open(settings))
        graph = GraphOptions(
            limits=Limits(cost=settings.gateway_graphql_max_cost),
            documents=TrustedDocuments.load(settings.gateway_graphql_trusted_documents),
            streams=settings.gateway_streams,
            compiled=settings.gateway_graphql_compiled,
            production=settings.production,
            federation=settings.gateway_federation,
        )
        app = build_app(
            await stack.enter_async_context(bank),
            await stack.enter_async_context(analytics),
            await stack.enter_async_context(card),
            await stack.enter_async_context(identity),
            verifier,
            await stack.enter_async_context(RateLimiter.connect(settings.rate_limit_options())),
            stop,
            cors=settings.cors_options(),
            timeout_seconds=settings.gateway_timeout_seconds,
            graph=graph,
        )
        await stack.enter_async_context(
            http_server(admin_app({"keys": verifier.check_ready}), settings.gateway_admin_listen)
        )
        server = http_server(
            app,
            settings.gateway_listen,
            limits=settings.connection_limits(),
            trusted_proxies=settings.gateway_trusted_proxies,
            ws_max_size=graph.websocket_limits.message_bytes,
        )
        await stack.enter_async_context(server)
        await stop.wait()


def _gateway_token(settings: Settings) -> ServiceTokenProvider | None:
    """Return the provider of the gateway's own tokens; None without a key.

    The tokens prove clients' addresses to the card service, and let the gateway forward transfers to the bank.
    """
    if settings.service_key_file is None:
        log.warning("no SERVICE_KEY_FILE: declined cards are not limited by address")
        return None
    signer = TokenSigner.from_file(GATEWAY, settings.service_key_file, settings.auth_audience)
    return ServiceTokenProvider(signer, GATEWAY)


if __name__ == "__main__":
    run_service("gateway", Settings, serve)
