"""Admin interface of a process: health, metrics and authenticated admin routes."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.types import Receive, Scope, Send

from kit.auth.access import AccessPolicy
from kit.auth.bearer import AUTHORIZATION, challenge, parse_bearer_lines
from kit.auth.principal import TokenVerifier
from kit.http.invalid_requests import body_model, describe_error
from kit.http.routing import answer_head, new_app, send_head
from wallet.errors import Code, TokenTooLong, Unauthenticated, WalletError

HealthCheck = Callable[[], Awaitable[None]]
"""Check of one dependency: returns if the dependency is available, otherwise raises an exception."""

_STATUS: Final = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.UNAVAILABLE: 503,
}
_TOKEN_TOO_LONG: Final = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
_CHECK_TIMEOUT_SECONDS: Final = 2.0


def admin_app(checks: Mapping[str, HealthCheck]) -> FastAPI:
    """Return the admin interface of a process: health and `/metrics`, both without authentication.

    The GET routes of a router that is included later need `answer_head`; `add_authorized_routes` calls it.
    """
    app = new_app()
    rendering = asyncio.Lock()
    add_health_routes(app, checks)

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(request: Request, error: RequestValidationError) -> Response:
        errors = [describe_error(each, {}, body_model(request.scope.get("route"))) for each in error.errors()]
        detail = "; ".join(f"{field}: {message}" for field, message in errors)
        return JSONResponse({"detail": detail}, HTTPStatus.UNPROCESSABLE_ENTITY)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))  # OpenMetrics has exemplars
        async with rendering:
            content = await render_metrics(encode, REGISTRY)
        return Response(content, headers={"Content-Type": content_type, "Vary": "Accept"})

    answer_head(app.router.routes)
    return app


async def render_metrics(encode: Callable[[Collector], bytes], registry: CollectorRegistry) -> bytes:
    """Return the metrics as text. After each metric, pause for as long as it took.

    Args:
        encode: converts the metrics of a registry to text.
        registry: registry with the metrics.
    """
    parts, end = list[bytes](), encode(CollectorRegistry())  # OpenMetrics ends with a comment
    started = time.perf_counter()
    for metric in registry.collect():
        parts.append(encode(_OneMetric(metric)).removesuffix(end))
        await asyncio.sleep(time.perf_counter() - started)
        started = time.perf_counter()
    return b"".join(parts) + end


class _OneMetric(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return [self._metric]


def add_authorized_routes(app: FastAPI, verifier: TokenVerifier, policy: AccessPolicy, *routers: APIRouter) -> None:
    """Add routes that need a token.

    A request to one of them is refused with 401 if it has no valid token, 431 if its token is too long, 400 if it has
    several tokens, and 403 if the policy does not allow the caller. HEAD is allowed by the rule of GET. A route finds
    the caller in `request.state.principal`.

    Args:
        app: admin interface of the process.
        verifier: verifies the callers' tokens.
        policy: a rule for each route, by method and path.
        routers: routers with the routes.

    Raises:
        RuntimeError: a route has no rule, or a rule has no route.
    """
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    paths = {f"{method} {route.path}" for route in routes for method in route.methods or ()}
    if paths != policy.keys():
        raise RuntimeError(
            f"admin routes and access policy differ, add or remove rules for: {sorted(paths ^ policy.keys())}"
        )

    async def authorize(request: Request) -> None:
        method = "GET" if request.method == "HEAD" else request.method
        rule = policy[f"{method} {request.scope['route'].path}"]
        try:
            token = parse_bearer_lines(request.headers.getlist(AUTHORIZATION))
            if not token:
                raise Unauthenticated
            request.state.principal = await verifier.verify(token)
            rule.check(request.state.principal)
        except WalletError as error:
            value = challenge(error)
            headers = None if value is None else {"WWW-Authenticate": value}
            status = _TOKEN_TOO_LONG if isinstance(error, TokenTooLong) else _STATUS[error.code]
            raise HTTPException(status, error.message, headers) from None

    answer_head(routes)
    for router in routers:
        app.include_router(router, dependencies=[Depends(authorize)])


def add_health_routes(app: FastAPI, checks: Mapping[str, HealthCheck]) -> None:
    """Add `/health/live` (the process runs) and `/health/ready` (all checks pass; otherwise 503 with all states)."""

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready")
    async def ready(response: Response) -> dict[str, Any]:
        states = await run_checks(checks)
        is_ready = all(state == "ok" for state in states.values())
        response.status_code = 200 if is_ready else 503
        return {"status": "ready" if is_ready else "not ready", "checks": states}


async def run_checks(checks: Mapping[str, HealthCheck]) -> dict[str, str]:
    """Run all checks concurrently, each for at most two seconds; return `ok` or the error type by check."""

    async def state(check: HealthCheck) -> str:
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_SECONDS):
                await check()
        except Exception as error:  # noqa: BLE001  any error of a dependency means not ready
            return type(error).__name__
        return "ok"

    states = await asyncio.gather(*map(state, checks.values()))
    return dict(zip(checks, states, strict=True))


class JsonLinesResponse(StreamingResponse):
    """Streaming response of JSON lines, one per value; closes the generator when the response ends.

    A HEAD request does not start the generator.
    """

    media_type = "application/x-ndjson"

    def __init__(self, values: AsyncGenerator[Mapping[str, object], None]) -> None:
        super().__init__(_lines(values))
        self._values = values

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        if scope["method"] == "HEAD":
            await self._values.aclose()
            await send_head(self, send)
        else:
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send the lines, then close their generator."""
        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().stream_response(send)


async def _lines(values: AsyncGenerator[Mapping[str, object], None]) -> AsyncIterator[bytes]:
    async with aclosing(values):
        async for value in values:
            yield orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
