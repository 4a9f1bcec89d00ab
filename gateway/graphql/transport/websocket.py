"""GraphQL over WebSocket, by the protocol graphql-transport-ws."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry import UNSET
from strawberry.asgi import GraphQL
from strawberry.http.exceptions import NonJsonMessageReceived, WebSocketDisconnected
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler

from gateway.errors import OperationRefused, format_graphql_error, rate_limited_to_graphql
from gateway.graphql.execution.context import Context
from gateway.graphql.execution.runner import too_many_streams
from gateway.graphql.execution.strawberry_internals import GraphSchema
from gateway.graphql.protection.limits import WebSocketLimits
from gateway.graphql.protection.trusted_documents import TrustedDocuments
from gateway.graphql.transport.close_reasons import MALFORMED
from gateway.graphql.transport.requests import GraphRequest, RequestRefused
from gateway.graphql.transport.websocket_adapter import WebSocketAdapter
from gateway.http.cors import CorsOptions, is_localhost
from gateway.http.rate_limits import RateLimiter
from gateway.http.stream_limits import StreamLimiter
from gateway.http.strict_json import MalformedJSONError, loads
from gateway.http.work_limits import WorkLimits, hold_for_request
from gateway.policy import ANY_USER
from kit.auth.bearer import AUTHORIZATION, has_other_scheme, parse_bearer, parse_bearer_lines
from kit.auth.principal import Principal, TokenVerifier
from kit.rpc import request_context
from wallet.errors import InvalidInput, RateLimited, ResourceExhausted, Unauthenticated, Unavailable, WalletError

log = structlog.get_logger(__name__)

_TYPES: Final = frozenset({"connection_init", "ping", "pong", "subscribe", "complete"})
_UNKNOWN_TYPE: Final = f"type must be one of {', '.join(sorted(_TYPES))}"
_REQUIRED_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {"subscribe": ("id", "payload"), "complete": ("id",)}
"""Members that a message must have, besides its type."""
_AUTHORIZATION_HEADER: Final = AUTHORIZATION.lower().encode()
_HANDSHAKE: Final = "wallet.handshake"
"""Key in the ASGI scope of the WebSocket's place among those without a verified caller (`WorkLimits.handshakes`)."""
_AUTHORIZATION_MEMBER: Final = AUTHORIZATION.lower()
_CLOSE_CODES: Final[dict[type[WalletError], int]] = {InvalidInput: 4400, Unavailable: 1013}
"""Close codes of errors in `connection_init`. All other errors there close the WebSocket with 4403."""


class _Handler(BaseGraphQLTransportWSHandler[Context, None]):
    """Handler of one connection. It adds checks of messages, trusted documents, limits and stable error codes.

    When the caller's token expires, the connection closes with 4403. graphql-ws's client then reconnects, with a new
    token if it has one.
    """

    view: "GraphQLOverWebSocket"
    _expiry: asyncio.Task[None] | None = None
    _release_stream: Callable[[], None] | None = None
    _early_messages = 0
    websocket: WebSocketAdapter

    async def handle_connection_init(self, message: Any) -> None:
        if message.get("payload") is None:
            message = {"type": "connection_init"}
        try:
            await super().handle_connection_init(message)
        except WalletError as error:
            await self.websocket.close(code=_CLOSE_CODES.get(type(error), 4403), reason=error.message)
        caller = request_context.current_request.get().principal
        if caller is not None and self._expiry is None:
            self.websocket.ws.scope[_HANDSHAKE].release()
            self._expiry = asyncio.create_task(self._close_at_expiry(caller))
            self._expiry.add_done_callback(_retrieve_exception)
            self._release_stream = self.view.streams.acquire(caller)
            if self._release_stream is None:
                await self.websocket.close(code=1013, reason=too_many_streams(self.view.streams.limit).message)

    async def send_message(self, message: Any) -> None:
        """Send a message. The `data: null` that Strawberry adds to request errors is removed, as over HTTP."""
        if message["type"] == "next":
            payload = message["payload"]
            errors = payload.get("errors")
            if errors and payload["data"] is None and not any("path" in error for error in errors):
                del payload["data"]
        await super().send_message(message)

    async def handle_task_exception(self, error: Exception) -> None:
        """Log the error of an operation's task, unless the client has disconnected meanwhile."""
        if not isinstance(error, WebSocketDisconnected):
            log.error("unexpected error", exc_info=error)

    async def _close_at_expiry(self, caller: Principal) -> None:
        await asyncio.sleep(caller.stream_seconds())
        await self.websocket.close(code=4403, reason="the token has expired; get a new one")

    async def shutdown(self) -> None:
        """Cancel the connection's tasks and drop the references to them.

        Otherwise a task's error, which refers to the handler, would keep it in memory.
        """
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._release_stream is not None:
            self._release_stream()
        await super().shutdown()
        self.connection_init_timeout_task = None

    async def handle_message(self, message: Any) -> None:
        """Handle a message. A malformed one closes the connection with 4400; the reason never quotes the message."""
        if not isinstance(message, dict) or not isinstance(id_ := message.get("id", ""), str):
            await self.handle_invalid_message(MALFORMED)
            return
        limits, type_ = self.view.limits, message.get("type")
        if not isinstance(type_, str) or type_ not in _TYPES:
            await self.handle_invalid_message(_UNKNOWN_TYPE)
            return
        if missing := [name for name in _REQUIRED_MEMBERS.get(type_, ()) if name not in message]:
            await self.handle_invalid_message(f"a message of type {type_} needs {' and '.join(missing)}")
            return
        if len(id_) > limits.id_length:
            await self.handle_invalid_message(f"id must be at most {limits.id_length} characters")
            return
        if not self.connection_acknowledged:
            self._early_messages += 1
            if self._early_messages > limits.early_messages:
                reason = f"at most {limits.early_messages} messages are allowed before connection_ack"
                await self.websocket.close(code=4429, reason=reason)
                return
        try:
            await self._count_message()
        except RateLimited as error:
            if type_ == "subscribe" and self.connection_acknowledged and "id" in message:
                await self._refuse(message["id"], rate_limited_to_graphql(error))
            else:
                await self.websocket.close(code=1013, reason=error.message)
            return
        await super().handle_message(message)  # type: ignore[arg-type]  # Strawberry checks the message's shape

    async def _count_message(self) -> None:
        """Count a message for the caller's rate limit, after authentication. The middleware has counted the handshake.

        Raises:
            RateLimited: the caller's rate limit is exceeded.
        """
        caller = request_context.current_request.get().principal
        if caller is not None:
            limiter = self.view.rate_limiter
            await limiter.pace(limiter.requests, caller.scope)
            await limiter.share_time(request_context.current_request.get().client_address)
            await limiter.hit(limiter.requests, caller.scope)

    async def _refuse(self, id_: str, error: OperationRefused) -> None:
        await self.send_message({"id": id_, "type": "error", "payload": [format_graphql_error(error).formatted]})

    async def handle_subscribe(self, message: Any) -> None:
        if self.connection_acknowledged and message["id"] in self.operations:
            await self.websocket.close(code=4409, reason="an operation with this id is running: use another id")
            return
        try:
            request = GraphRequest.from_json(message["payload"])
        except RequestRefused as error:
            await self.handle_invalid_message(error.message)
            return
        is_new = self.connection_acknowledged and message["id"] not in self.operations
        try:
            if is_new and len(self.operations) >= self.view.limits.operations:
                raise _too_many_operations(self.view.limits.operations)
            query = self.view.documents.resolve_text(request.query, request.document_id) if is_new else ""
        except OperationRefused as error:
            await self._refuse(message["id"], error)
            return
        message["payload"]["query"] = query
        await self._start(message)

    async def run_operation(self, operation: Any) -> None:
        address = request_context.current_request.get().client_address
        await self.view.rate_limiter.time.measure(address, super().run_operation(operation))

    async def _start(self, message: Any) -> None:
        """Start the operation, unless the messages of the caller's running operations are too large together."""
        caller = request_context.current_request.get().principal
        if caller is None:  # not acknowledged: Strawberry closes the connection
            await super().handle_subscribe(message)
            return
        messages, size = self.view.work.messages, self.websocket.message_size
        if not messages.try_enter(caller.scope, size):
            error = ResourceExhausted()
            await self._refuse(message["id"], OperationRefused(error.reason, error.message))
            return
        try:
            await super().handle_subscribe(message)
            operation = self.operations[message["id"]]
        except BaseException:
            messages.leave(caller.scope, size)
            raise

        def end(_: asyncio.Task[None]) -> None:
            """Release the message, and break the cycle of an operation that was cancelled.

            The task keeps its CancelledError, whose traceback leads to the operation.
            """
            messages.leave(caller.scope, size)
            operation.task = None

        operation.task.add_done_callback(end)  # type: ignore[union-attr]  # it has just started


class GraphQLOverWebSocket(GraphQL[Context, None]):
    """ASGI app for GraphQL over WebSocket. Callers authenticate in `connection_init` or in the upgrade request."""

    graphql_transport_ws_handler_class = _Handler

    def __init__(
        self,
        schema: GraphSchema,
        new_context: Callable[[], Context],
        documents: TrustedDocuments,
        verifier: TokenVerifier,
        rate_limiter: RateLimiter,
        limits: WebSocketLimits,
        streams: StreamLimiter,
        work: WorkLimits,
        *,
        cors: CorsOptions,
    ) -> None:
        """Args:
        schema: schema to execute operations on.
        new_context: creates the context of each connection.
        documents: allow-list of documents.
        verifier: verifies the tokens of callers.
        rate_limiter: rate limiter; each message counts as a request.
        limits: limits of each connection.
        streams: limiter of the open streams of each caller.
        work: limits of the work in progress of each client.
        cors: options with the further origins from which pages may connect.
        """
        super().__init__(
            schema,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=timedelta(seconds=limits.init_seconds),
            max_subscriptions_per_connection=None,  # `_Handler` checks this limit, with a stable error code
            allowed_origins=list(cors.origins),
        )
        self.websocket_adapter_class = partial(WebSocketAdapter, bodies=work.bodies)  # type: ignore[assignment]
        self._allow_localhost = cors.localhost
        self.documents = documents
        self.limits = limits
        self.rate_limiter = rate_limiter
        self.streams = streams
        self.work = work
        self._new_context = new_context
        self._verifier = verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket. Only some WebSockets of one address may be without a verified caller; others wait."""
        hold = scope[_HANDSHAKE] = hold_for_request(self.work.handshakes)
        if await self._has_valid_token(scope):
            await super().__call__(scope, receive, send)
            return
        async with hold:
            await super().__call__(scope, receive, send)

    async def _has_valid_token(self, scope: Scope) -> bool:
        """Return whether the upgrade request itself has a valid token. It is verified again in `connection_init`."""
        lines = [value.decode("latin-1") for name, value in scope["headers"] if name == _AUTHORIZATION_HEADER]
        try:
            token = parse_bearer_lines(lines)
            if token:
                await self._verifier.verify(token)
        except WalletError:
            return False
        return bool(token)

    def is_websocket_origin_allowed(self, request: WebSocket, origin: str) -> bool:
        """Return whether a page of another origin may connect. Strawberry calls it."""
        if self._allow_localhost and is_localhost(origin):
            return True
        return super().is_websocket_origin_allowed(request, origin)

    async def get_context(self, request: Request | WebSocket, response: Request | Response | WebSocket) -> Context:  # noqa: ARG002
        """Return the context of a connection. Strawberry calls it with the upgrade request."""
        context = self._new_context()
        context.authorization = request.headers.getlist(AUTHORIZATION)
        return context

    def decode_json(self, data: str | bytes) -> object:
        """Parse a message as strictly as the body of an HTTP request."""
        try:
            return loads(data)
        except MalformedJSONError:
            raise NonJsonMessageReceived from None

    async def on_ws_connect(self, context: Context) -> Any:
        """Authenticate the caller for all operations of the connection.

        The token is in the payload of `connection_init`, or in the header of the upgrade request. Clients that cannot
        set the header, such as browsers, use the payload. Both may be present if they have the same token.

        Returns:
            UNSET, so that `connection_ack` has no payload: graphql-ws 5.0 to 5.11 reject a null payload.

        Raises:
            InvalidInput: there are different tokens, or several header lines.
            Unauthenticated: there is no valid token.
            PermissionDenied: the caller has no known role, or is a service.
            Unavailable: the issuer's keys are not available, so the token cannot be verified.
            TokenTooLong: the token is too long; the message names the limit.
        """
        token = _read_token(context.connection_params, context.authorization)
        if not token:
            raise Unauthenticated
        principal = await self._verifier.verify(token)
        ANY_USER.check(principal)
        request_context.current_request.set(request_context.current_request.get().with_principal(principal, token))
        return UNSET


def _read_token(payload: Mapping[str, Any], lines: Sequence[str]) -> str:
    """Return the one token of a connection; empty if it has none.

    Values without a token are ignored. If the payload has a token, credentials of another scheme in the header are
    ignored too, because a proxy may use the header for itself.

    Args:
        payload: payload of `connection_init`.
        lines: `Authorization` lines of the upgrade request.

    Raises:
        InvalidInput: there are different tokens, or several lines.
        Unauthenticated: a value is not a string, or its scheme is not Bearer.
    """
    tokens = {token for token in map(_parse_value, _values_in_payload(payload)) if token}
    if not (tokens and len(lines) == 1 and has_other_scheme(lines[0])):
        tokens.add(parse_bearer_lines(lines))
    tokens.discard("")
    if len(tokens) > 1:
        problem = "must have one token: the values of connection_init and of the upgrade request differ"
        raise InvalidInput.for_field(AUTHORIZATION, problem)
    return tokens.pop() if tokens else ""


def _values_in_payload(payload: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the values of `authorization` and `headers.authorization`, with names in any case."""
    headers = payload.get("headers")
    for members in (payload, headers if isinstance(headers, dict) else {}):
        for name, value in members.items():
            if name.lower() == _AUTHORIZATION_MEMBER and value is not None:
                yield value


def _parse_value(value: Any) -> str:
    """Return the token of a value in the payload; empty if it has none.

    Raises:
        Unauthenticated: the value is not a string, or its scheme is not Bearer.
    """
    if not isinstance(value, str):
        raise Unauthenticated.for_token("`authorization` must be a string: send `Bearer TOKEN`")
    return parse_bearer(value)


def _retrieve_exception(task: asyncio.Task[None]) -> None:
    """Prevent asyncio's warning about an exception that was never retrieved."""
    if not task.cancelled():
        task.exception()


def _too_many_operations(limit: int) -> OperationRefused:
    message = f"this connection has {limit} operations, which is the maximum: complete one, or open another connection"
    return OperationRefused("GRAPHQL_OPERATIONS_EXCEEDED", message, limit=limit)
