"""Start of a process: settings, logs, traces, and the two ports that every gRPC service has."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any

import structlog
from fastapi import APIRouter

from kit.auth.access import AccessPolicy
from kit.auth.principal import TokenVerifier
from kit.http.admin import HealthCheck, add_authorized_routes, admin_app
from kit.http.routing import answer_head
from kit.http.server import http_server
from kit.rpc.server import Service, grpc_server
from kit.rpc.tls import TLS
from kit.runtime import process
from kit.runtime.addresses import ListenError
from kit.runtime.job import ProcessSettings, configure_process
from kit.runtime.settings import TracingSettings
from kit.telemetry import tracing

log = structlog.get_logger(__name__)


def run_service(
    name: str,
    settings_class: type[ProcessSettings],
    serve: Callable[[ProcessSettings, asyncio.Event], Coroutine[Any, Any, None]],
) -> None:
    """Run a process until SIGTERM or SIGINT; `__main__` calls it.

    Args:
        name: name of the process in logs and traces.
        settings_class: class of the settings, which are loaded from the environment. Invalid settings end the process
            with status 2.
        serve: called with the settings and an event. It serves until the event is set, then shuts down. If it cannot
            listen on an address, the process logs the reason and ends with status 1.
    """
    settings = configure_process(name, settings_class)
    with tracing.export_spans(name, settings) if isinstance(settings, TracingSettings) else nullcontext():
        try:
            process.run(partial(serve, settings))
        except ListenError as error:
            log.critical("process cannot listen", error=str(error))
            raise SystemExit(1) from None


@asynccontextmanager
async def service_ports(
    *,
    grpc_listen: str,
    admin_listen: str,
    services: Mapping[str, Service],
    verifier: TokenVerifier,
    tls: TLS | None,
    checks: Mapping[str, HealthCheck],
    admin_policy: AccessPolicy = MappingProxyType({}),
    admin_routers: Sequence[APIRouter] = (),
    public_routers: Sequence[APIRouter] = (),
) -> AsyncIterator[None]:
    """Serve the gRPC port and the admin port of a service; on exit, stop gRPC first.

    Args:
        grpc_listen: `host:port`.
        admin_listen: `host:port`.
        services: gRPC services by their full names.
        verifier: verifies callers' tokens on both ports.
        tls: certificates of the gRPC port; None: plaintext on loopback.
        checks: health checks by the name of the dependency.
        admin_policy: access rules of the admin routers, by method and path.
        admin_routers: admin routes that need a token.
        public_routers: admin routes without authentication, besides health and metrics.
    """
    admin = admin_app(checks)
    add_authorized_routes(admin, verifier, admin_policy, *admin_routers)
    for router in public_routers:
        answer_head(router.routes)
        admin.include_router(router)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(http_server(admin, admin_listen))
        await stack.enter_async_context(grpc_server(grpc_listen, verifier, services, tls, checks))
        yield
