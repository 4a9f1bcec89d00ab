"""HTTP/1.1 and WebSocket server of a process."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import structlog
import uvicorn

from kit.http.uvicorn_internals import BoundedHttpProtocol, BoundedWebSocketProtocol, ServerWithoutSignals

log = structlog.get_logger(__name__)

_STOP_TIMEOUT_SECONDS: Final = 5


@contextlib.asynccontextmanager
async def http_server(
    app: Any, listen: str, *, trusted_proxies: Sequence[str] = (), **options: Any
) -> AsyncIterator[None]:
    """Serve an app while the block runs. On exit, requests in progress have five seconds to finish.

    Args:
        app: ASGI application.
        listen: `host:port`.
        trusted_proxies: addresses or networks of proxies whose `X-Forwarded-…` headers are used.
        options: further options of `uvicorn.Config`.

    Raises:
        OSError: the port is in use.
    """
    host, _, port = listen.rpartition(":")
    config = uvicorn.Config(
        app,
        host,
        int(port),
        http=BoundedHttpProtocol,
        ws=BoundedWebSocketProtocol,
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
    with socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        # Connections inherit TCP_NODELAY. uvloop sets it on each; asyncio only if the listener names its protocol.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            log.info("serving HTTP", listen=listen)
            yield
        finally:
            server.should_exit = True
            await serving
