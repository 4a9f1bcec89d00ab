"""What FastAPI's routing leaves open: HEAD, the `Allow` field of 405 answers, and redirects."""

from collections.abc import Iterable
from typing import Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope, Send

_METHODS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


def new_app() -> FastAPI:
    """Return an app without routes. It does not redirect: FastAPI's redirects go to any host that a request names."""
    return FastAPI(openapi_url=None, redirect_slashes=False)


def answer_head(routes: Iterable[BaseRoute]) -> None:
    """Let the routes that answer GET answer HEAD in the same way, as Starlette's own routes do.

    The server leaves out the body. Call it at start, and before a router with these routes is included.
    """
    for route in routes:
        if isinstance(route, APIRoute) and route.methods is not None and "GET" in route.methods:
            route.methods.add("HEAD")


def allowed_methods(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """Return the methods of all routes of the request's path. Starlette lists those of the first route only."""
    candidates = [route for route in routes if not isinstance(route, Mount)]
    return [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in candidates)
    ]


async def send_head(response: Response, send: Send) -> None:
    """Send a response without its body. A stream needs it for HEAD: it would run to its end for nothing."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": b""})
