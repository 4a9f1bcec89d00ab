"""Corrections of FastAPI's routing: HEAD, the `Allow` field of 405 responses, and no redirects."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope, Send

_NO_TELEMETRY: Final = TelemetryConfig(tracing=False, metrics=False, logs=False)
"""FastAPI's own spans, metrics and logs are off: the project has its own, and the check for them costs time."""
_METHODS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


def new_app() -> FastAPI:
    """Return an app without routes. It does not redirect: FastAPI's redirects go to any host that a request names.

    Errors are `{"detail": …}`, also those of unknown paths and methods. An app with errors of another form replaces
    the handler of HTTPException.
    """
    app = FastAPI(openapi_url=None, redirect_slashes=False, telemetry=_NO_TELEMETRY)

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> Response:
        headers, detail = dict(error.headers or {}), error.detail
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(allowed_methods(app.router.routes, request.scope))
            detail = describe_wrong_method(headers["Allow"])
        elif (error.status_code, detail) == (HTTPStatus.NOT_FOUND, HTTPStatus.NOT_FOUND.phrase):
            detail = "there is no such path: see the reference of this port"
        return JSONResponse({"detail": detail}, error.status_code, headers)

    return app


def describe_wrong_method(allow: str) -> str:
    """Return the message of a 405 response for its `Allow` field."""
    return f"this path has only the methods {allow}"


def answer_head(routes: Iterable[BaseRoute]) -> None:
    """Let the GET routes also handle HEAD, as Starlette's own routes do.

    The server leaves out the body. Call this function at start, and before a router with these routes is included.
    """
    for route in routes:
        if isinstance(route, APIRoute) and route.methods is not None and "GET" in route.methods:
            route.methods.add("HEAD")


def allowed_methods(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """Return the methods of all routes of the request's path. Starlette lists only the methods of the first route."""
    candidates = [route for route in routes if not isinstance(route, Mount)]
    return [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in candidates)
    ]


async def send_head(response: Response, send: Send) -> None:
    """Send the head of a response, for HEAD. Otherwise a streaming response would run to its end."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": b""})
