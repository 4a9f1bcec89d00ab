"""HTTP/1.1 and WebSocket server of a process."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import structlog
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.http.connections import SWEEP_SECONDS, ConnectionLimits, Connections, raise_descriptor_limit
from kit.http.uvicorn_internals.server import BoundedConfig, ServerWithoutSignals
from kit.runtime.addresses import open_listener

log = structlog.get_logger(__name__)

_HEALTH_PATHS: Final = frozenset({"/health/live", "/health/ready"})
_HEALTH_METHODS: Final = frozenset({"GET", "HEAD"})

_STOP_TIMEOUT_SECONDS: Final = 5
_RECEIVE_BUFFER_BYTES: Final = 64 * 1024
"""Size of the kernel's receive buffer of a connection, and so of the data that one read delivers to the process.

By default the buffer grows to megabytes, and each of hundreds of connections could hold 256 KB in the process.
"""
_BACKLOG: Final = 128
"""Connections that the kernel queues until the process accepts them. All must fit into `OTHER_DESCRIPTORS`."""


def is_health_check(scope: Scope) -> bool:
    """Return whether a request is a health check, which is served even above the limits of requests and connections.

    Other methods and paths below `/health/` are ordinary requests.
    """
    return scope["path"] in _HEALTH_PATHS and scope.get("method") in _HEALTH_METHODS


@contextlib.asynccontextmanager
async def http_server(
    app: Any,
    listen: str,
    *,
    limits: ConnectionLimits | None = None,
    trusted_proxies: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[None]:
    """Serve an app while the block runs. On exit, requests in progress have five seconds to finish.

    Each connection ends if it makes no progress (`kit.http.connections`). The soft limit of open descriptors of the
    process is raised to the hard one.

    Args:
        app: ASGI application. Above the limit of connections, it receives health checks only.
        listen: `host:port`.
        limits: limits of connections; None: the defaults of `ConnectionLimits`, for listeners with few clients.
        trusted_proxies: addresses or networks of proxies whose `X-Forwarded-…` headers are used.
        options: further options of `uvicorn.Config`.

    Raises:
        ListenError: the port is in use, or the host is not an address of this machine.
    """
    raise_descriptor_limit()
    connections = Connections(listen, limits or ConnectionLimits())
    config = BoundedConfig(
        app,
        connections,
        HealthChecksOnly(app),
        backlog=_BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),  # without proxies, the middleware would only cost time
        forwarded_allow_ips=list(trusted_proxies),
        timeout_graceful_shutdown=_STOP_TIMEOUT_SECONDS,
        **options,
    )
    server = ServerWithoutSignals(config)
    # uvicorn's own listener would end the process when the port is in use.
    with open_listener(listen) as listener:
        # Connections inherit TCP_NODELAY. uvloop sets it anyway; asyncio only if the listener names its protocol.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        with contextlib.closing(connections), _sweeping(connections):
            try:
                log.info("serving HTTP", listen=listen)
                yield
            finally:
                server.should_exit = True
                await serving


@contextlib.contextmanager
def _sweeping(connections: Connections) -> Iterator[None]:
    """Sweep the connections once a second while the block runs."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def sweep() -> None:
        nonlocal timer
        timer = loop.call_later(SWEEP_SECONDS, sweep)  # before the sweep, so that an error does not end the sweeps
        connections.sweep(loop.time())

    timer = loop.call_later(SWEEP_SECONDS, sweep)
    try:
        yield
    finally:
        timer.cancel()


class HealthChecksOnly:
    """ASGI app of a connection above the limit: health checks pass, all other requests get 503."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        app = self._app if scope["type"] == "http" and is_health_check(scope) else _BUSY
        await app(scope, receive, send_and_close)


_BUSY: Final = PlainTextResponse(
    "the server has too many connections: try again in a few seconds, over fewer connections\n",
    503,
    {"Retry-After": "5"},
)
