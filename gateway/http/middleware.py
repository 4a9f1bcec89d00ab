"""ASGI middleware of all routes, inside CORS (`cors.py`). It applies the concerns of a request in a fixed order."""

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import build_problem, problem_from_error
from gateway.http import metrics
from gateway.http.authentication import authenticate
from gateway.http.body_limit import BodyLimit
from gateway.http.content_encoding import ContentDecoding
from gateway.http.exchange import CLIENT_CLOSED_REQUEST, Exchange
from gateway.http.large_bodies import LARGE_BODY_LIMIT_BYTES
from gateway.http.rate_limits import RateLimiter
from gateway.http.timeouts import BodyTimeoutError, RequestTimeouts
from gateway.http.work_limits import BESIDE_OTHERS, WorkLimits, hold_for_request
from gateway.policy import AUTH_PREFIX, SESSION_PATHS
from kit.auth.principal import TokenVerifier
from kit.http.addresses import address_key
from kit.http.turnstile import Turnstile
from kit.rpc import request_context
from kit.rpc.request_context import RequestContext
from wallet.errors import InternalError, WalletError

log = structlog.get_logger(__name__)

_STARTS_PER_TURN: Final = 16
"""Requests that start in one turn of the event loop. Until its first call of a service, a request takes some 300 µs."""
_STARTS_BESIDE_OTHERS: Final = 4
"""The same while several addresses are active. Fewer starts make more turns, which take time."""

_SMALL_ENCODED_BYTES: Final = 4 * 1024
"""Size up to which an encoded body has the usual limit. A batch of transfers with their keys is not so small."""


class RequestMiddleware:
    """ASGI middleware of every HTTP request and WebSocket, except preflight requests, to which CORS responds.

    Concerns in the order in which they apply:

    1. request id, trace span and deadline, in the request context (`exchange.py`)
    2. authentication: 401 for an invalid token, 431 for too long a token, 400 for several tokens, 403 for a service's
       token and for one without a known role (`authentication.py`)
    3. rate limit: 429, per principal, or per address for anonymous callers (`rate_limits.py`); bursts are spread over
       time (`pacing.py`). Health checks are only spread, never refused.
    4. body time-out: 408, and cancellation when the client disconnects (`timeouts.py`); then the limit of concurrent
       requests of one address (`work_limits.py`)
    5. body limit: 413 (`body_limit.py`); a larger one for verified callers on paths that take lists of transfers, a few
       requests of an address at a time (`work_limits.py`). Then gzip: 400 and 415 (`content_encoding.py`)
    6. response headers: security, `X-Request-Id` and rate limit (`exchange.py`, `security_headers.py`)
    7. metrics, one log line and the end of the span (`exchange.py`)

    A request with a refused token also counts for the rate limit, so the error is raised after the hit.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifier: TokenVerifier,
        rate_limiter: RateLimiter,
        work: WorkLimits,
        *,
        timeout_seconds: float,
        body_limit_bytes: int,
        large_body_paths: Collection[str] = (),
    ) -> None:
        """Args:
        app: ASGI app with the routes.
        verifier: validates bearer tokens.
        rate_limiter: limits the requests of each caller and of each address.
        work: limits of the work in progress of each client.
        timeout_seconds: time limit of an HTTP request, for its body and for its calls to the services; streams have no
            limit.
        body_limit_bytes: maximum size of a request body, both as sent and after decoding.
        large_body_paths: paths on which a verified caller may send more (`LARGE_BODY_LIMIT_BYTES`), if the body has a
            `Content-Length`.
        """
        self._app = BodyLimit(app, body_limit_bytes)
        self._decoding_app = BodyLimit(ContentDecoding(app, body_limit_bytes), body_limit_bytes)
        large = max(LARGE_BODY_LIMIT_BYTES, body_limit_bytes)
        self._large_app = BodyLimit(app, large)
        self._large_decoding_app = BodyLimit(ContentDecoding(app, large), large)
        self._body_limit_bytes = body_limit_bytes
        self._large_body_paths = large_body_paths
        self._verifier = verifier
        self._rate_limiter = rate_limiter
        self._work = work
        self._turnstile = Turnstile(_STARTS_PER_TURN)
        self._timeout_seconds = timeout_seconds
        self._timeouts = RequestTimeouts(timeout_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        host = str((scope.get("client") or ("",))[0])
        time = self._rate_limiter.time
        self._turnstile.per_turn = _STARTS_BESIDE_OTHERS if time.is_shared else _STARTS_PER_TURN
        await self._turnstile.enter(host)
        await time.measure(host, self._handle(scope, receive, send, host))

    async def _handle(self, scope: Scope, receive: Receive, send: Send, host: str) -> None:
        exchange = Exchange(scope, send)
        deadline = exchange.started + self._timeout_seconds if scope["type"] == "http" else None
        context = RequestContext(exchange.request_id, deadline=deadline, trace=exchange.span.trace, client_address=host)
        reset = request_context.current_request.set(context)
        try:
            invalid_token = await authenticate(self._verifier, scope, exchange.headers)
            is_beside_others = await self._hit_rate_limit(exchange)
            if invalid_token is not None:
                raise invalid_token  # noqa: TRY301  the handlers below send the response to every error
            if scope["type"] == "http":
                is_large = self._may_be_large(exchange)
                if b"content-encoding" in exchange.headers:
                    app = self._large_decoding_app if is_large else self._decoding_app
                else:
                    app = self._large_app if is_large else self._app
                start: Callable[[], Awaitable[object]] = _start_at_once
                if not exchange.is_health_check:
                    size = BESIDE_OTHERS if is_beside_others else 1
                    place = hold_for_request(self._work.requests, size, by_address=True)
                    exchange.on_response_start = place.release
                    start = place.__aenter__
                if is_large:
                    await self._hold_large_body(exchange)
                await self._timeouts.run(app, scope, receive, exchange.send, start)
            else:
                with metrics.WEBSOCKETS.track_inprogress():
                    await self._app(scope, receive, exchange.send)
        except WalletError as error:
            await exchange.send_problem(receive, *problem_from_error(error))
        except BodyTimeoutError:
            detail = f"the request body did not arrive within {self._timeout_seconds:g} s"
            problem = build_problem(HTTPStatus.REQUEST_TIMEOUT, "REQUEST_TIMEOUT", detail)
            await exchange.send_problem(receive, problem, {"Connection": "close"})
        except Exception as error:
            if exchange.status != CLIENT_CLOSED_REQUEST:  # the response has started; the server closes the connection
                raise
            log.error("unexpected error", exc_info=error)
            await exchange.send_problem(receive, *problem_from_error(InternalError()))
        finally:
            exchange.on_response_start()  # there may be no response
            exchange.complete()
            request_context.current_request.reset(reset)

    def _may_be_large(self, exchange: Exchange) -> bool:
        """Return whether the caller may send a body above the usual limit, and its length shows that it may be one."""
        if exchange.scope["path"] not in self._large_body_paths:
            return False
        if request_context.current_request.get().principal is None:
            return False
        is_encoded = b"content-encoding" in exchange.headers
        length = int(exchange.headers.get(b"content-length", b"0"))
        return length > (_SMALL_ENCODED_BYTES if is_encoded else self._body_limit_bytes)

    async def _hold_large_body(self, exchange: Exchange) -> None:
        """Wait for a place for a large body, and keep it until the response starts: a stream may last for hours.

        Raises:
            ResourceExhausted: there was none before the deadline of the request.
        """
        hold, release_others = hold_for_request(self._work.large_bodies, by_address=True), exchange.on_response_start

        def release() -> None:
            hold.release()
            release_others()

        exchange.on_response_start = release
        await hold.__aenter__()

    async def _hit_rate_limit(self, exchange: Exchange) -> bool:
        """Count the request, and make the response headers show the remaining quota, except those of health checks.

        A burst of requests is spread over time. Health checks have no other limit.

        Returns:
            Whether the address uses much time and shares it with others that use little.

        Raises:
            RateLimited: the limit of the caller or of the address is exceeded.
        """
        limiter, scope = self._rate_limiter, exchange.scope
        caller = request_context.current_request.get().principal
        if exchange.is_health_check:
            limit, client = limiter.health, address_key(scope.get("client"))
        elif scope["type"] == "websocket":
            limit, client = limiter.websocket, address_key(scope.get("client"))
        elif scope["path"] in SESSION_PATHS:
            limit, client = limiter.session, address_key(scope.get("client"))
        elif scope["path"].startswith(AUTH_PREFIX):
            limit, client = limiter.login, caller.scope if caller else address_key(scope.get("client"))
        else:
            limit, client = limiter.limit_for(caller, scope.get("client"))
        await limiter.pace(limit, client)
        if exchange.is_health_check:
            return False
        is_beside_others = await limiter.share_time(request_context.current_request.get().client_address)
        exchange.read_rate_limit_status = partial(limiter.status, limit, client)
        await limiter.hit(limit, client)
        return is_beside_others


async def _start_at_once() -> None:
    """Health checks do not wait for other requests of their address."""
