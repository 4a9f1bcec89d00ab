"""The gateway's own metrics, but for the graph's operations (`gateway/graphql/execution/metrics.py`)."""

from typing import Final

from prometheus_client import Gauge, Histogram
from starlette.types import Scope

REQUEST_SECONDS = Histogram(
    "wallet_gateway_request_duration_seconds",
    "HTTP requests until their answer began, by method, the route's template and the class of the status.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WEBSOCKETS = Gauge("wallet_gateway_websockets", "Open WebSockets.")
EVENT_STREAMS = Gauge("wallet_gateway_event_streams", "Open streams of server-sent events.")

OTHER: Final = "other"
"""The route of what has none, or was refused before it was looked for; the method of what is none of HTTP's."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def tell(scope: Scope, status: int, seconds: float) -> None:
    """An HTTP request that is over.

    Args:
        scope: as its route has left it: `route` in it is FastAPI's, `graph` the path of an endpoint of the graph. What
            was asked for is no label.
        status: of the answer.
        seconds: until the answer began.
    """
    method = scope["method"] if scope["method"] in _METHODS else OTHER
    template = scope.get("graph") or getattr(scope.get("route"), "path", OTHER)
    REQUEST_SECONDS.labels(method, template, f"{status // 100}xx").observe(seconds)
