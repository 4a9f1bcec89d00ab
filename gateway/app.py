"""The gateway as one ASGI app: middleware, GraphQL endpoints, and a FastAPI app with REST, pages and health."""

import asyncio
from functools import partial

from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.graphql.execution.context import Context
from gateway.graphql.execution.options import GraphOptions
from gateway.graphql.execution.schemas import GRAPH_PATH, build_schemas
from gateway.graphql.protection.trusted_documents import TrustedDocuments
from gateway.graphql.transport.http import GraphQLOverHTTP
from gateway.graphql.transport.websocket import GraphQLOverWebSocket
from gateway.http.conditional_reads import conditional_send
from gateway.http.cors import CorsOptions, with_cors
from gateway.http.large_bodies import DEFAULT_BODY_LIMIT_BYTES
from gateway.http.middleware import RequestMiddleware
from gateway.http.pages import add_pages
from gateway.http.rate_limits import RateLimiter
from gateway.http.stream_limits import StreamLimiter
from gateway.http.work_limits import WorkLimits
from gateway.rest import rest_routes
from gateway.rest.direct_route import DirectRoute
from gateway.rest.error_handlers import add_error_handlers
from gateway.rest.signing_keys import signing_key_routes
from gateway.rest.transfer_batches import PATH as TRANSFER_BATCHES
from kit.auth.principal import TokenVerifier
from kit.http.admin import add_health_routes
from kit.http.routing import answer_head, new_app
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from subgraphs.card.client import CardClient
from subgraphs.identity.client import IdentityClient


def build_app(
    bank: BankClient,
    analytics: AnalyticsClient,
    card: CardClient,
    identity: IdentityClient,
    verifier: TokenVerifier,
    rate_limiter: RateLimiter,
    stop: asyncio.Event,
    *,
    cors: CorsOptions,
    body_limit_bytes: int = DEFAULT_BODY_LIMIT_BYTES,
    timeout_seconds: float,
    graph: GraphOptions,
) -> ASGIApp:
    """Build the ASGI app that calls the services through these clients.

    Args:
        bank: gRPC client of the bank.
        analytics: gRPC client of analytics.
        card: gRPC client of the card service.
        identity: gRPC client of the identity service.
        verifier: validates bearer tokens.
        rate_limiter: limits the requests of each caller and of each address.
        stop: set at shutdown; it ends the open streams of server-sent events.
        cors: allowed origins and request headers of cross-origin requests.
        body_limit_bytes: maximum size of a request body.
        timeout_seconds: time limit of an HTTP request, for its body and for its calls to the services; streams have no
            limit.
        graph: options of the GraphQL endpoints.
    """
    app = new_app()
    add_error_handlers(app)
    # The REST routes come first, because the router tries routes in order. They are added without include_router, so
    # requests do not pass through a second router.
    work = WorkLimits()
    routes = rest_routes(bank, analytics, card, identity, rate_limiter, work)
    app.router.routes += routes
    app.router.routes += signing_key_routes(verifier).routes
    add_pages(app)
    add_health_routes(app, {"keys": verifier.check_ready})
    answer_head(app.router.routes)
    direct = [each for each in routes if isinstance(each, DirectRoute)]
    endpoints: dict[tuple[str, str], ASGIApp] = {}
    new_context = partial(Context, bank, analytics, card, identity, rate_limiter)
    streams = StreamLimiter(graph.streams)
    for path, schema in build_schemas(graph, streams, work).items():
        # Trusted documents apply to the public graph only. A federation router sends its own queries to the subgraphs.
        documents = graph.documents if path == GRAPH_PATH else TrustedDocuments(texts=None)
        endpoints["http", path] = GraphQLOverHTTP(
            schema, new_context, documents, stop, work, batch_limit=graph.batch_limit, graphiql=not graph.production
        )
        endpoints["websocket", path] = GraphQLOverWebSocket(
            schema,
            new_context,
            documents,
            verifier,
            rate_limiter,
            graph.websocket_limits,
            streams,
            work,
            cors=cors,
        )

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        """Call the GraphQL endpoint of the path, or its direct route, or FastAPI if there is none.

        GraphQL requests and direct routes bypass FastAPI, which would take as much time as a whole query.
        """
        endpoint = endpoints.get((scope["type"], scope.get("path", "")))
        if endpoint is not None:
            scope["graph"] = scope["path"]  # the route label in metrics; the routes of REST set `route`
            await endpoint(scope, receive, send)
            return
        if scope["type"] == "http":
            send = conditional_send(scope, send)
        for route in direct:
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                await route.app(scope, receive, send)
                return
        await app(scope, receive, send)

    guarded = RequestMiddleware(
        dispatch,
        verifier,
        rate_limiter,
        work,
        timeout_seconds=timeout_seconds,
        body_limit_bytes=body_limit_bytes,
        large_body_paths={TRANSFER_BATCHES, *(path for _, path in endpoints)},
    )
    return with_cors(guarded, cors, rate_limiter)
