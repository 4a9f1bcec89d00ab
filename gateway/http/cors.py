"""CORS: the origins whose pages may read responses, and the headers that these pages may send."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http.rate_limits import RateLimiter
from kit.http.addresses import address_key
from wallet.errors import RateLimited

ALL: Final = "*"

DEFAULT_HEADERS: Final = (
    "apollo-require-preflight",
    "apollographql-client-name",
    "apollographql-client-version",
    "authorization",
    "baggage",
    "content-encoding",
    "content-type",
    "graphql-require-preflight",
    "idempotency-key",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "x-apollo-operation-id",
    "x-apollo-operation-name",
    "x-request-id",
)
"""Request headers of the API and of tracing, and those that GraphQL clients and browser monitoring add on their own."""

_METHODS: Final = ("GET", "HEAD", "POST")

_LOCALHOST: Final = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?"
_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class CorsOptions:
    """Options of CORS.

    Attributes:
        origins: allowed origins; `*` for all.
        headers: allowed request headers; `*` for all.
        localhost: allow the origins of this machine too, on any port.
    """

    origins: Sequence[str] = ()
    headers: Sequence[str] = DEFAULT_HEADERS
    localhost: bool = False


def is_localhost(origin: str) -> bool:
    """Return whether the origin is this machine, on any port."""
    return re.fullmatch(_LOCALHOST, origin) is not None


def check_origin(origin: str) -> str:
    """Return the origin if it has the form that browsers send.

    Raises:
        ValueError: the origin has another form, for example with a path. The message describes the right form.
    """
    if origin != ALL and not _ORIGIN.fullmatch(origin):
        raise ValueError(
            "is no origin: write scheme, host in lower case, and port, without a path, as in https://a.example:8443"
        )
    return origin


def check_header(name: str) -> str:
    """Return the name of a header if it is valid.

    Raises:
        ValueError: the name has characters that are not allowed in header names.
    """
    if not _HEADER.fullmatch(name):
        raise ValueError("is no header name: write one name per element, as in x-request-id")
    return name


class _Cors(CORSMiddleware):
    """Starlette's middleware, with two differences.

    Preflight requests of one address are spread over time, like all other requests. The response to a refused preflight
    request tells developers the reason.
    """

    def __init__(self, app: ASGIApp, limiter: RateLimiter, **options: Any) -> None:
        super().__init__(app, **options)
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            try:
                await self._limiter.pace(self._limiter.preflight, address_key(scope.get("client")))
            except RateLimited as error:
                response = PlainTextResponse(f"{error.message}\n", HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": "1"})
                await response(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return PlainTextResponse(self._describe(request_headers), response.status_code, headers)

    def _describe(self, request_headers: Headers) -> str:
        """Return a message that says what is not allowed. It does not quote the request."""
        if not self.is_allowed_origin(request_headers["origin"]):
            return "pages of this origin may not call the wallet: ask its operator to allow the origin\n"
        if request_headers["access-control-request-method"] not in self.allow_methods:
            return f"pages may use only the methods {', '.join(self.allow_methods)}\n"
        asked = request_headers.get("access-control-request-headers", "").split(",")
        if not self.allow_all_headers and any(name.strip().lower() not in self.allow_headers for name in asked):
            return f"pages may send only the headers {', '.join(self.allow_headers)}\n"
        return "pages of a public network may not call the wallet in a private network\n"


def with_cors(app: ASGIApp, options: CorsOptions, limiter: RateLimiter) -> ASGIApp:
    """Return the app with CORS, or the app itself if no other origin is allowed.

    Args:
        app: ASGI app.
        options: allowed origins and request headers.
        limiter: spreads preflight requests over time.
    """
    if not options.origins and not options.localhost:
        return app
    cors = _Cors(
        app,
        limiter,
        allow_origins=options.origins,
        allow_origin_regex=_LOCALHOST if options.localhost else None,
        allow_methods=_METHODS,
        allow_headers=options.headers,
        expose_headers=[
            "ETag",
            "Idempotency-Replayed",
            "Location",
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
            "WWW-Authenticate",
            "X-GraphQL-Cost-Actual",
            "X-GraphQL-Cost-Estimated",
            "X-Request-Id",
        ],
    )
    if options.origins:
        return cors  # also for requests without an origin: their responses need `Vary: Origin` for caches

    async def only_with_origin(scope: Scope, receive: Receive, send: Send) -> None:
        """Call the CORS middleware only for requests with an `Origin`. Other requests do not need it."""
        for name, _ in scope.get("headers", ()):
            if name == b"origin":
                await cors(scope, receive, send)
                return
        await app(scope, receive, send)

    return only_with_origin
