"""The graph over WebSocket, by graphql-transport-ws."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import strawberry
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http.exceptions import NonJsonMessageReceived
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler

from gateway.errors import OperationRefused, format_graphql_error, rate_limited_to_graphql
from gateway.graphql.execution.documents import TrustedDocuments
from gateway.graphql.execution.schema import Context, too_many_streams
from gateway.graphql.protection.limits import WebSocketLimits
from gateway.graphql.transport.requests import GraphRequest, Refused
from gateway.http.rate_limits import RateLimiter
from gateway.http.stream_limits import StreamLimiter
from gateway.http.strict_json import MalformedJSONError, loads
from gateway.policy import ANY_USER
from kit.auth.principal import Principal, TokenVerifier
from kit.rpc import request_context
from wallet.errors import RateLimited, Unavailable, WalletError


class _Handler(BaseGraphQLTransportWSHandler[Context, None]):
    """Strawberry's, for messages of any shape, with trusted documents and codes that stay. It ends with the caller's
    token, by 4403, after which graphql-ws's client connects again, with a fresh token if it has one.
    """

    view: "GraphQLOverWebSocket"
    _ending: asyncio.Task[None] | None = None
    _close: Callable[[], None] | None = None

    async def handle_connection_init(self, message: Any) -> None:
        try:
            await super().handle_connection_init(message)
        except Unavailable as error:
            await self.websocket.close(code=1013, reason=error.message)
        caller = request_context.current_request.get().principal
        if caller is not None and self._ending is None:
            self._ending = asyncio.create_task(self._end(caller))
            self._ending.add_done_callback(self._task_done)
            self._close = self.view.streams.acquire(caller)
            if self._close is None:
                await self.websocket.close(code=1013, reason=too_many_streams(self.view.streams.limit).message)

    async def _end(self, caller: Principal) -> None:
        await asyncio.sleep(caller.expires_at - time.time())
        await self.websocket.close(code=4403, reason="the token has expired; get a new one")

    async def shutdown(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
        if self._close is not None:
            self._close()
        await super().shutdown()

    async def handle_message(self, message: Any) -> None:
        if not isinstance(message, dict) or not isinstance(message.get("id", ""), str):
            await self.handle_invalid_message("Failed to parse message")
            return
        try:
            await self._count()
        except RateLimited as error:
            if message.get("type") == "subscribe" and self.connection_acknowledged and "id" in message:
                await self._refuse(message["id"], rate_limited_to_graphql(error))
            else:
                await self.websocket.close(code=1013, reason=error.message)
            return
        await super().handle_message(message)  # type: ignore[arg-type]  # whose shape it checks

    async def _count(self) -> None:
        """Counts a message of the caller's; who has not said who they are was counted when they came.

        Raises:
            RateLimited: it is one too many.
        """
        caller = request_context.current_request.get().principal
        if caller is not None:
            await self.view.rates.hit(self.view.rates.requests, caller.scope)

    async def _refuse(self, id_: str, error: OperationRefused) -> None:
        await self.send_message({"id": id_, "type": "error", "payload": [format_graphql_error(error).formatted]})

    async def handle_subscribe(self, message: Any) -> None:
        try:
            request = GraphRequest.of(message["payload"])
        except Refused as refused:
            await self.handle_invalid_message(refused.message)
            return
        is_new = self.connection_acknowledged and message["id"] not in self.operations
        try:
            if is_new and len(self.operations) >= self.view.limits.operations:
                raise _too_many_operations(self.view.limits.operations)
            query = self.view.documents.text(request.query, request.document_id) if is_new else ""
        except OperationRefused as error:
            await self._refuse(message["id"], error)
            return
        message["payload"]["query"] = query
        await super().handle_subscribe(message)


class GraphQLOverWebSocket(GraphQL[Context, None]):
    """Strawberry's own, for those who say who they are."""

    graphql_transport_ws_handler_class = _Handler

    def __init__(
        self,
        schema: strawberry.Schema,
        new_context: Callable[[], Context],
        documents: TrustedDocuments,
        verifier: TokenVerifier,
        rates: RateLimiter,
        limits: WebSocketLimits,
        streams: StreamLimiter,
        *,
        allowed_origins: list[str],
    ) -> None:
        """Args:
        schema: what is executed.
        new_context: for each connection.
        documents: that are executed.
        verifier: of callers' tokens.
        rates: of what they ask for: each message counts as a request.
        limits: of each connection.
        streams: that callers have open.
        allowed_origins: whose pages may connect besides our own; `*` for all.
        """
        super().__init__(
            schema,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=timedelta(seconds=limits.init_seconds),
            max_subscriptions_per_connection=None,  # told by a code of our own
            allowed_origins=allowed_origins,
        )
        self.documents = documents
        self.limits = limits
        self.rates = rates
        self.streams = streams
        self._new_context = new_context
        self._verifier = verifier

    async def get_context(self, request: Request | WebSocket, response: Request | Response | WebSocket) -> Context:  # noqa: ARG002, D102
        return self._new_context()

    def decode_json(self, data: str | bytes) -> object:  # noqa: D102  as bodies are read
        try:
            return loads(data)
        except MalformedJSONError:
            raise NonJsonMessageReceived from None

    async def on_ws_connect(self, context: Context) -> dict[str, object] | None:
        """Whoever connects says who they are once, for all of the connection's operations: `connection_params` carries
        `authorization: Bearer …`.
        """
        params = {name.lower(): value for name, value in context.connection_params.items()}
        token = str(params.get("authorization", "")).removeprefix("Bearer ")
        try:
            principal = await self._verifier.verify(token)
            ANY_USER.check(principal)
        except Unavailable:  # it says nothing of the token
            raise
        except WalletError as error:
            raise ConnectionRejectionError from error
        request_context.current_request.set(request_context.current_request.get().with_principal(principal, token))
        return None


def _too_many_operations(limit: int) -> OperationRefused:
    message = f"this connection has {limit} operations, and no more are allowed at once: complete one, or open another"
    return OperationRefused("GRAPHQL_OPERATIONS_EXCEEDED", message, limit=limit)
