"""The graph over WebSocket, by graphql-transport-ws."""

from collections.abc import Callable

import strawberry
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from gateway.graphql.schema import Context
from kit import call
from kit.principal import Verifier
from wallet.errors import Unauthenticated


class GraphQLOverWebSocket(GraphQL[Context, None]):
    """Strawberry's own, for those who say who they are."""

    def __init__(
        self,
        schema: strawberry.Schema,
        new_context: Callable[[], Context],
        verifier: Verifier,
        *,
        allowed_origins: list[str],
    ) -> None:
        """Args:
        schema: what is executed.
        new_context: for each connection.
        verifier: of callers' tokens.
        allowed_origins: whose pages may connect besides our own; `*` for all.
        """
        super().__init__(
            schema,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            allowed_origins=allowed_origins,
        )
        self._new_context = new_context
        self._verifier = verifier

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:  # noqa: ARG002, D102
        return self._new_context()

    async def on_ws_connect(self, context: Context) -> dict[str, object] | None:
        """Whoever connects says who they are once, for all of the connection's operations: `connection_params` carries
        `authorization: Bearer …`.
        """
        params = {name.lower(): value for name, value in context.connection_params.items()}
        token = str(params.get("authorization", "")).removeprefix("Bearer ")
        try:
            principal = self._verifier.verify(token)
        except Unauthenticated as error:
            raise ConnectionRejectionError from error
        call.current.set(call.Call(call.current.get().request_id, principal, token))
        return None
