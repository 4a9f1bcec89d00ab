"""The graph over HTTP, WebSocket and server-sent events."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import strawberry
from cross_web import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.extensions import ParserCache, SchemaExtension, ValidationCache
from strawberry.http import GraphQLHTTPResponse
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from gateway import pages
from gateway.composition import SUBGRAPHS, compose, subgraph
from gateway.errors import graphql_error
from kit import call
from kit.principal import Verifier
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from subgraphs.bank.graph import AccountLoader, TransferLoader, account_loader, transfer_loader
from subgraphs.card.client import CardClient
from subgraphs.card.graph import TopUpLoader, top_up_loader
from wallet.errors import Unauthenticated

_CACHED_DOCUMENTS: Final = 1_000
"""Parsed and validated query texts that are kept; without these two caches a mutation takes three times as long."""

_LITERALS: Final = re.compile(r'"|\d{3}')

GRAPHQL_SSE_PROTOCOL: Final = "graphql-sse"


class _Parser(ParserCache):
    """Keeps no text with values written into it: it may hold a card's number, and it seldom comes again. Texts that
    take their values by variables do.
    """

    def on_parse(self) -> Iterator[None]:
        if _LITERALS.search(self.execution_context.query or ""):
            yield
        else:
            yield from super().on_parse()


class _Validation(ValidationCache):
    """Keeps what `_Parser` does."""

    def on_validate(self) -> Iterator[None]:
        if _LITERALS.search(self.execution_context.query or ""):
            yield
        else:
            yield from super().on_validate()


class StableErrors(SchemaExtension):
    """Every error of a stream leaves as `graphql_error` makes it. `GraphView.process_result` does it for the others."""

    def on_stream_result(self, result: Any) -> Iterator[None]:  # noqa: D102
        _stabilise(result)
        yield


def _stabilise(result: Any) -> None:
    if result.errors:
        result.errors = [graphql_error(error) for error in result.errors]


def build_schemas(*, federation: bool) -> dict[str, strawberry.Schema]:
    """By path: the merged graph and, with federation, each subgraph alone; all with what every execution needs."""
    extensions = [
        partial(_Parser, maxsize=_CACHED_DOCUMENTS),
        partial(_Validation, maxsize=_CACHED_DOCUMENTS),
        StableErrors,
    ]
    schemas = {"/graphql": compose(extensions, federation=federation)}
    if federation:
        schemas |= {f"/subgraphs/{name}/graphql": subgraph(name, extensions) for name in SUBGRAPHS}
    return schemas


@dataclass(slots=True)
class Context:
    """What resolvers need of one request, or of one WebSocket connection."""

    bank: BankClient
    analytics: AnalyticsClient
    card: CardClient
    accounts: AccountLoader
    transfers: TransferLoader
    top_ups: TopUpLoader
    connection_params: dict[str, Any] = field(default_factory=dict)


class GraphView(GraphQL[Context, None]):
    """GraphQL over HTTP (queries, mutations, subscriptions by SSE) and graphql-transport-ws."""

    def __init__(
        self,
        schema: strawberry.Schema,
        bank: BankClient,
        analytics: AnalyticsClient,
        card: CardClient,
        verifier: Verifier,
        *,
        allowed_origins: list[str],
    ) -> None:
        super().__init__(
            schema,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_SSE_PROTOCOL),
            allowed_origins=allowed_origins,
        )
        self._bank = bank
        self._analytics = analytics
        self._card = card
        self._verifier = verifier

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:  # noqa: ARG002, D102
        return Context(
            self._bank,
            self._analytics,
            self._card,
            account_loader(self._bank),
            transfer_loader(self._bank),
            top_up_loader(self._card),
        )

    def parse_json(self, data: str | bytes) -> Any:  # noqa: D102
        # Strawberry takes it for granted that a body is text, and that JSON is an object or a list.
        try:
            parsed = super().parse_json(data)
        except UnicodeDecodeError:
            parsed = None
        if not isinstance(parsed, dict | list):
            raise HTTPException(400, "The body must be a JSON object.")
        return parsed

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

    async def process_result(self, request: Request, result: Any) -> GraphQLHTTPResponse:  # noqa: D102
        _stabilise(result)
        return await super().process_result(request, result)

    async def render_graphql_ide(self, request: Request) -> Response:  # noqa: ARG002, D102
        return HTMLResponse(pages.GRAPHIQL)
