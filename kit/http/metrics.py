"""Metrics of HTTP listeners."""

from prometheus_client import Counter, Gauge

OPEN = Gauge("wallet_http_connections", "Open connections of a listener.", ["listen"])
REFUSED = Counter(
    "wallet_http_connections_refused",
    "Connections above a limit: closed at once, or refused with 503 unless they are health checks.",
    ["listen", "limit"],
)
ENDED = Counter(
    "wallet_http_connections_ended",
    "Connections that the server ended in a stage: out of time, or for a newer connection at a limit.",
    ["listen", "stage", "reason"],
)
REQUESTS_REFUSED = Counter(
    "wallet_http_requests_refused", "Requests that the server refused before the app got them.", ["status"]
)
WEBSOCKETS_CLOSED = Counter(
    "wallet_http_websockets_closed",
    "WebSockets that the server closed because of malformed or too many frames, by close code.",
    ["code"],
)
