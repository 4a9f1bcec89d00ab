"""Metrics of HTTP listeners."""

from prometheus_client import Counter, Gauge

OPEN = Gauge("wallet_http_connections", "Open HTTP connections, by listening address.", ["listen"])
REFUSED = Counter(
    "wallet_http_connections_refused",
    "Connections above a limit, by listening address and limit. The server closes them, or serves only health checks "
    "on them and refuses other requests with 503.",
    ["listen", "limit"],
)
ENDED = Counter(
    "wallet_http_connections_ended",
    "Connections that the server ended, by stage (what the connection waited for) and reason: timeout, or limit if a "
    "newer connection took the place.",
    ["listen", "stage", "reason"],
)
REQUESTS_REFUSED = Counter(
    "wallet_http_requests_refused",
    "Requests that the HTTP server refused before the application received them, by status.",
    ["status"],
)
WEBSOCKETS_CLOSED = Counter(
    "wallet_http_websockets_closed",
    "WebSockets that the server closed because frames were malformed or too many, by close code.",
    ["code"],
)
