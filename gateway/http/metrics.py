"""Metrics of the gateway's HTTP requests. Those of GraphQL operations are in `gateway/graphql/execution/metrics.py`."""

from functools import lru_cache
from typing import Final

from prometheus_client import Gauge, Histogram
from starlette.types import Scope

REQUEST_SECONDS = Histogram(
    "wallet_gateway_request_duration_seconds",
    "Duration of HTTP requests until the response starts, by method, route template and status class.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WEBSOCKETS = Gauge("wallet_gateway_websockets", "Open WebSockets.")
EVENT_STREAMS = Gauge("wallet_gateway_event_streams", "Open streams of server-sent events.")

OTHER: Final = "other"
"""Label of requests without a route or rejected before routing, and of non-standard methods."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def route_template(scope: Scope) -> str | None:
    """Return the path template of the route that served the request; None if no route did.

    The routes of REST set `route` in the scope, the gateway sets `graph` for its GraphQL endpoints.
    """
    return scope.get("graph") or getattr(scope.get("route"), "path", None)


def record_request(scope: Scope, status: int, seconds: float, exemplar: dict[str, str] | None) -> None:
    """Record a completed HTTP request.

    Args:
        scope: ASGI scope after the request. Its path is never a label, because callers choose it.
        status: status of the response.
        seconds: time until the response started.
        exemplar: ids of the request's trace and span; None if the trace is not sampled.
    """
    method = scope["method"] if scope["method"] in _METHODS else OTHER
    _request_seconds(method, route_template(scope) or OTHER, status // 100).observe(seconds, exemplar)


@lru_cache(maxsize=1_024)
def _request_seconds(method: str, route: str, status_class: int) -> Histogram:
    """Return the histogram with these labels. `labels` would take as long as the observation on each request."""
    return REQUEST_SECONDS.labels(method, route, f"{status_class}xx")
