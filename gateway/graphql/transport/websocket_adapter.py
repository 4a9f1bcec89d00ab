"""Strawberry's WebSocket adapter with our close reasons, and a limit of the messages that are parsed at once."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import NonTextMessageReceived, WebSocketDisconnected

from gateway.graphql.transport.close_reasons import REASONS
from gateway.http.work_limits import SMALL_BODY_BYTES, hold_body
from kit.runtime.fair_limit import FairLimit
from wallet.errors import ResourceExhausted


class WebSocketAdapter(ASGIWebSocketAdapter):
    """Strawberry's WebSocket adapter with the gateway's close reasons. A client may disconnect at any time.

    Attributes:
        message_size: characters of the message that was received last.
    """

    def __init__(self, view: Any, request: WebSocket, response: WebSocket, *, bodies: FairLimit) -> None:
        """Args:
        view: Strawberry's view.
        request: the WebSocket.
        response: the same WebSocket.
        bodies: limit of the messages that are parsed (`WorkLimits`).
        """
        super().__init__(view, request, response)
        self.message_size = 0
        self._bodies = bodies

    async def iter_json(self, *, ignore_parsing_errors: bool = False) -> AsyncGenerator[object, None]:  # noqa: ARG002
        """Yield the decoded messages until the WebSocket closes.

        Raises:
            NonTextMessageReceived: a message is binary.
            NonJsonMessageReceived: a message is not valid JSON.
        """
        with suppress(WebSocketDisconnect):
            while self.ws.application_state is not WebSocketState.DISCONNECTED:
                try:
                    text = await self.ws.receive_text()
                except KeyError:
                    raise NonTextMessageReceived from None
                self.message_size = len(text)
                if self.message_size <= SMALL_BODY_BYTES:
                    yield self.view.decode_json(text)
                    continue
                try:
                    async with hold_body(self._bodies, self.message_size):
                        message = self.view.decode_json(text)
                        yield message
                        _empty(message)
                except ResourceExhausted as error:
                    await self.close(1013, error.message)
                message = text = ""

    async def send_json(self, message: Mapping[str, object]) -> None:
        """Send a message.

        Raises:
            WebSocketDisconnected: the WebSocket is closed, or the client has disconnected.
        """
        if self.ws.application_state is WebSocketState.DISCONNECTED:  # Starlette raises another error
            raise WebSocketDisconnected
        await super().send_json(message)

    async def close(self, code: int, reason: str) -> None:
        """Close the WebSocket with the gateway's reason, unless it is closed or the client has disconnected."""
        if self.ws.application_state is not WebSocketState.DISCONNECTED:
            with suppress(WebSocketDisconnect):
                await super().close(code, REASONS.get(reason, reason))


def _empty(message: object) -> None:
    """Remove the members of a handled message, because Strawberry keeps the message until the next one arrives."""
    if isinstance(message, dict):
        message.clear()
