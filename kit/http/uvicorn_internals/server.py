"""uvicorn's server and its configuration, with our protocols."""

import contextlib
from typing import Any

import uvicorn

from kit.http.connections import Connections
from kit.http.uvicorn_internals.http_protocol import BoundedHttpProtocol
from kit.http.uvicorn_internals.websocket_protocol import BoundedWebSocketProtocol


class ServerWithoutSignals(uvicorn.Server):
    """uvicorn's server without signal handlers: `kit.runtime.process` shuts down the whole process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Handle no signals."""
        yield


class BoundedConfig(uvicorn.Config):
    """uvicorn's configuration with our protocols.

    Attributes:
        open_connections: connections of the listener.
        reserve_app: app of the connections above the limit.
    """

    def __init__(self, app: Any, open_connections: Connections, reserve_app: Any, **options: Any) -> None:
        """Args:
        app: ASGI app.
        open_connections: connections of the listener.
        reserve_app: ASGI app of the connections above the limit.
        options: options of `uvicorn.Config`.
        """
        super().__init__(
            app,
            http=BoundedHttpProtocol,
            ws=BoundedWebSocketProtocol,
            ws_per_message_deflate=False,  # a compressed flood would cost the sender little; messages are small
            **options,
        )
        self.open_connections = open_connections
        self.reserve_app = reserve_app
