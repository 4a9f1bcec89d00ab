"""The gateway as one ASGI app."""

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import build_problem, problem_from_error, redact_digits
from gateway.graphql.execution.documents import TrustedDocuments
from gateway.graphql.execution.options import GraphOptions
from gateway.graphql.execution.schema import GRAPH_PATH, Context, build_schemas
from gateway.graphql.transport.http import GraphQLOverHTTP
from gateway.graphql.transport.websocket import GraphQLOverWebSocket
from gateway.http import pages
from gateway.http.middleware import BodyLimitMiddleware, CallMiddleware, problem_response
from gateway.http.rate_limits import RateLimiter
from gateway.http.stream_limits import StreamLimiter
from gateway.policy import OPEN_PATHS
from gateway.rest import rest_routes
from gateway.rest.route import UnsupportedMediaTypeError
from kit.auth.principal import TokenVerifier
from kit.http.admin import add_health_routes
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from subgraphs.card.client import CardClient
from subgraphs.identity.client import IdentityClient
from wallet.errors import FieldViolation, InternalError, InvalidInput, Unavailable, WalletError

log = structlog.get_logger(__name__)

_KEYS_SECONDS: Final = 60
"""How long the issuer's keys may be kept by others: as long as by a service."""


def build_app(
    bank: BankClient,
    analytics: AnalyticsClient,
    card: CardClient,
    identity: IdentityClient,
    verifier: TokenVerifier,
    rates: RateLimiter,
    stop: asyncio.Event,
    *,
    cors_origins: list[str],
    body_limit_bytes: int,
    timeout_seconds: float,
    graph: GraphOptions,
) -> ASGIApp:
    """REST, the graph, the pages and health, over the services.

    Args:
        bank: of the bank.
        analytics: of analytics.
        card: of card top-ups.
        identity: of users.
        verifier: of callers' tokens.
        rates: of what they ask for.
        stop: set when the gateway stops, which streams do not wait for.
        cors_origins: the origins whose pages may call; `*` for all.
        body_limit_bytes: the largest body taken.
        timeout_seconds: the longest that a request may take; streams have no limit.
        graph: how the graph is served.
    """
    app = FastAPI(openapi_url=None)
    _add_errors(app)
    # First, and themselves rather than by include_router: a route is found by trying one after the other, and there
    # would be a router of their own to ask before.
    app.router.routes += rest_routes(bank, analytics, card, identity)
    _add_keys(app, verifier)
    _add_pages(app)
    add_health_routes(app, {"keys": verifier.check_ready})
    endpoints: dict[tuple[str, str], ASGIApp] = {}
    new_context = partial(Context, bank, analytics, card, identity, rates)
    streams = StreamLimiter(graph.streams)
    for path, schema in build_schemas(graph, streams).items():
        # A router's documents are its own: it asks each subgraph for the part of a client's that is there.
        documents = graph.documents if path == GRAPH_PATH else TrustedDocuments(texts=None)
        endpoints["http", path] = GraphQLOverHTTP(
            schema, new_context, documents, stop, batch_limit=graph.batch_limit, page=not graph.production
        )
        endpoints["websocket", path] = GraphQLOverWebSocket(
            schema,
            new_context,
            documents,
            verifier,
            rates,
            graph.websocket_limits,
            streams,
            allowed_origins=cors_origins,
        )

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        """The graph stands beside FastAPI: what that does around each of its routes would cost as much as a query."""
        graph = endpoints.get((scope["type"], scope.get("path", "")))
        if graph is not None:
            scope["graph"] = scope["path"]  # which tells requests apart, as FastAPI's `route` does the others
        await (graph or app)(scope, receive, send)

    guarded: ASGIApp = BodyLimitMiddleware(front, body_limit_bytes)
    guarded = CallMiddleware(guarded, verifier, rates, timeout_seconds)
    if not cors_origins:
        return guarded
    return CORSMiddleware(
        guarded,
        allow_origins=cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id", "traceparent", "tracestate"],
        expose_headers=[
            "Location",
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
            "X-GraphQL-Cost-Actual",
            "X-GraphQL-Cost-Estimated",
            "X-Request-Id",
        ],
    )


def _add_keys(app: FastAPI, verifier: TokenVerifier) -> None:
    @app.get("/.well-known/jwks.json")
    async def keys() -> Response:
        """The users' issuer's, as they are believed here: also while the issuer is away."""
        if verifier.user_jwks is None:
            raise Unavailable("the issuer's keys")
        return JSONResponse(verifier.user_jwks, headers={"Cache-Control": f"max-age={_KEYS_SECONDS}"})


def _add_pages(app: FastAPI) -> None:
    page_headers = {"Content-Security-Policy": pages.policy(pages.REST_DOCS)}

    @app.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(pages.REST_DOCS, headers=page_headers)

    @app.get("/openapi.yaml")
    async def openapi() -> FileResponse:
        return FileResponse(pages.OPENAPI, media_type="application/yaml")

    app.mount("/assets", _Assets(directory=pages.VENDOR))


class _Assets(StaticFiles):
    """Releases that never change, each in a folder of its version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(WalletError)
    async def expected(_: Request, error: WalletError) -> Response:
        return problem_response(*problem_from_error(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # The messages name rules, never the values that broke them.
        is_open = request.url.path in OPEN_PATHS
        violations = tuple(FieldViolation(_field(each, is_open=is_open), each["msg"]) for each in error.errors())
        return problem_response(*problem_from_error(InvalidInput(violations)))

    @app.exception_handler(UnsupportedMediaTypeError)
    async def not_json(_: Request, __: UnsupportedMediaTypeError) -> Response:
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        return problem_response(build_problem(status, "UNSUPPORTED_MEDIA_TYPE", "send application/json"), {})

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        headers = dict(error.headers or {})
        if status is HTTPStatus.METHOD_NOT_ALLOWED:  # of several routes at one address, Starlette names the first one's
            headers["Allow"] = ", ".join(sorted(_methods(app, request.url.path)))
        return problem_response(build_problem(status, status.name, error.detail), headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        log.error("unexpected error", exc_info=error)
        return problem_response(*problem_from_error(InternalError()))


def _methods(app: FastAPI, path: str) -> set[str]:
    """That the address may be asked by."""
    found = [route for route in app.router.routes if isinstance(route, APIRoute) and route.path_regex.match(path)]
    return {method for route in found for method in route.methods or ()}


def _field(error: dict[str, Any], *, is_open: bool) -> str:
    """`("body", "amount")` is `amount`; a body that is no JSON is `body`. A name may be one that the caller made up, or
    where one signs in, a secret in the wrong place: there it is not repeated.
    """
    location: tuple[str | int, ...] = error["loc"]
    if is_open and error["type"] == "extra_forbidden":
        return str(location[0])
    names = [part for part in location[1:] if isinstance(part, str)]
    return redact_digits(".".join(names)) or str(location[0])
