"""Metrics that every process has. Each part defines its own beside these, in one commented place."""

from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import Counter, Enum, Gauge, Histogram, Info

from kit.rpc.circuit_breaker import STATES

BUILD = Info("wallet_build", "What runs here.")
BUILD.info({"version": version("wallet")})

RPC_SECONDS = Histogram(
    "wallet_rpc_duration_seconds",
    "Calls served, by method and canonical status code.",
    ["method", "code"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CALLS_REFUSED = Counter(
    "wallet_calls_refused",
    "Calls of a service that were not made, by method: as many as may be were under way, or its circuit was open.",
    ["method", "reason"],
)
CALL_CIRCUIT = Enum(
    "wallet_call_circuit",
    "Whether a method of a service is called: opened, it is not, since it did not answer; half-opened, once.",
    ["method"],
    states=STATES,
)
SPANS_DROPPED = Counter("wallet_spans_dropped", "Spans of traces that the collector did not take.")
CONNECTIONS_IN_USE = Gauge("wallet_database_connections_in_use", "Connections to the database that are taken.")
CONNECTIONS_LIMIT = Gauge("wallet_database_connections_limit", "The most that there may be; 0: no database.")
CERTIFICATE_EXPIRES = Gauge(
    "wallet_tls_certificate_expiry_timestamp_seconds", "When the certificate ends that peers are shown; 0: no TLS."
)


def register_pool(in_use: Callable[[], int], limit: int) -> None:
    """Tells of the process's pool of connections: `in_use` is asked at each scrape."""
    CONNECTIONS_IN_USE.set_function(in_use)
    CONNECTIONS_LIMIT.set(limit)
