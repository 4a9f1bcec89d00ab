"""The gateway's process: `python -m gateway`."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from pydantic import Field

from gateway.app import build_app
from kit import logs, process
from kit.admin import http_server
from kit.principal import Verifier
from kit.settings import Address, AuthSettings, LogSettings
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from subgraphs.card.client import CardClient


class Settings(AuthSettings, LogSettings):
    """What the gateway needs to know; each field is the environment variable of its name."""

    gateway_listen: Address = "127.0.0.1:8000"
    bank_grpc_target: str = "127.0.0.1:50051"
    card_grpc_target: str = "127.0.0.1:50052"
    analytics_grpc_target: str = "127.0.0.1:50053"
    gateway_timeout_seconds: float = Field(10.0, description="the longest that a request may take")
    gateway_rpc_timeout_seconds: float = Field(5.0, description="the longest that one call to a service may take")
    gateway_body_limit_bytes: int = 64 * 1024
    gateway_federation: bool = Field(False, description="serve the graph, and each subgraph alone, to a router")
    gateway_cors_origins: list[str] = Field([], description="JSON array of origins whose pages may call; * for all")


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set."""
    async with AsyncExitStack() as stack:
        rpc_timeout = settings.gateway_rpc_timeout_seconds
        bank = BankClient.connect(settings.bank_grpc_target, timeout_seconds=rpc_timeout)
        analytics = AnalyticsClient.connect(settings.analytics_grpc_target, timeout_seconds=rpc_timeout)
        card = CardClient.connect(settings.card_grpc_target, timeout_seconds=rpc_timeout)
        app = build_app(
            await stack.enter_async_context(bank),
            await stack.enter_async_context(analytics),
            await stack.enter_async_context(card),
            Verifier.from_settings(settings),
            cors_origins=settings.gateway_cors_origins,
            body_limit_bytes=settings.gateway_body_limit_bytes,
            timeout_seconds=settings.gateway_timeout_seconds,
            federation=settings.gateway_federation,
        )
        await stack.enter_async_context(http_server(app, settings.gateway_listen, ws="websockets-sansio"))
        await stop.wait()


if __name__ == "__main__":
    settings = Settings()
    logs.configure("gateway", settings)
    process.run(partial(serve, settings))
