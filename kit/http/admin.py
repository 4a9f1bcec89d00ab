"""The admin interface of a process: health, metrics, and what only those may ask who say who they are."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import orjson
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Send

from kit.auth.access import AccessPolicy
from kit.auth.principal import TokenVerifier
from wallet.errors import Code, Unauthenticated, WalletError

HealthCheck = Callable[[], Awaitable[None]]
"""Returns when a dependency answers, raises when it does not."""

_STATUS: Final = {Code.UNAUTHENTICATED: 401, Code.PERMISSION_DENIED: 403, Code.UNAVAILABLE: 503}
_CHECK_SECONDS: Final = 2.0


def admin_app(checks: Mapping[str, HealthCheck]) -> FastAPI:
    """The admin interface of a process that serves something else: health and `/metrics`, which are open to all."""
    app = FastAPI(openapi_url=None)
    add_health_routes(app, checks)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


def add_authorized_routes(app: FastAPI, verifier: TokenVerifier, policy: AccessPolicy, *routers: APIRouter) -> None:
    """Adds routes for those who say who they are: 401 or 403 to whom the policy does not admit.

    Args:
        app: the process's admin interface.
        verifier: of callers' tokens.
        policy: a rule for each route, by method and path.
        routers: the routes.

    Raises:
        RuntimeError: the policy has no rule for a route, or one for none.
    """
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    paths = {f"{method} {route.path}" for route in routes for method in route.methods or ()}
    if paths != policy.keys():
        raise RuntimeError(f"routes without a rule, or rules without a route: {sorted(paths ^ policy.keys())}")

    async def admit(request: Request) -> None:
        rule = policy[f"{request.method} {request.scope['route'].path}"]
        token = request.headers.get("authorization", "").removeprefix("Bearer").strip()
        try:
            if not token:
                raise Unauthenticated
            rule.check(await verifier.verify(token))
        except WalletError as error:
            raise HTTPException(_STATUS[error.code], error.message) from None

    for router in routers:
        app.include_router(router, dependencies=[Depends(admit)])


def add_health_routes(app: FastAPI, checks: Mapping[str, HealthCheck]) -> None:
    """`/health/live`: the process runs. `/health/ready`: every dependency answers, or 503 with the ones that do not."""

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
    """`ok` or the kind of failure, by the name of each check; all at once, in bounded time."""

    async def state(check: HealthCheck) -> str:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await check()
        except Exception as error:  # noqa: BLE001  whatever a dependency fails with, it is not ready
            return type(error).__name__
        return "ok"

    states = await asyncio.gather(*map(state, checks.values()))
    return dict(zip(checks, states, strict=True))


class JsonLinesResponse(StreamingResponse):
    """JSON, a value a line, as the values come. Their generator is closed with the response, however that ends."""

    media_type = "application/x-ndjson"

    def __init__(self, values: AsyncGenerator[Mapping[str, object], None]) -> None:
        super().__init__(_lines(values))

    async def stream_response(self, send: Send) -> None:
        """Starlette's own, and then the end of what made the lines."""
        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().stream_response(send)


async def _lines(values: AsyncGenerator[Mapping[str, object], None]) -> AsyncIterator[bytes]:
    async with aclosing(values):
        async for value in values:
            yield orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
