"""Metrics that all processes have. Each service has further metrics in its own `metrics.py`."""

from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Enum, Gauge, Histogram, Info
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from kit.rpc.circuit_breaker import STATES

_MetricT = TypeVar("_MetricT", bound=MetricWrapperBase)


class _OldName(Collector):
    """Exposes the samples of a metric under its old name."""

    def __init__(self, metric: Collector, old_name: str) -> None:
        self._metric = metric
        self._old_name = old_name

    def collect(self) -> Iterable[Metric]:
        for family in self._metric.collect():
            suffix = "_total" if family.type == "counter" else ""
            copy = Metric(self._old_name, f"Deprecated: use {family.name}{suffix}.", family.type)
            for sample in family.samples:
                name = self._old_name + sample.name.removeprefix(family.name)
                copy.add_sample(name, sample.labels, sample.value, sample.timestamp, sample.exemplar)
            yield copy


def with_old_name(metric: _MetricT, old_name: str, registry: CollectorRegistry = REGISTRY) -> _MetricT:
    """Return the metric, which is also exposed under the name that it had until the last release.

    Args:
        metric: metric under its new name.
        old_name: old name, without the `_total` of counters.
        registry: registry of the metric.
    """
    registry.register(_OldName(metric, old_name))
    return metric


BUILD = Info("wallet_build", "Version of the running build.")
BUILD.info({"version": version("wallet")})

RPC_SECONDS = Histogram(
    "wallet_rpc_duration_seconds",
    "Duration of the gRPC calls that this process served, by method and status code.",
    ["method", "code"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CALLS_REFUSED = Counter(
    "wallet_calls_refused",
    "gRPC calls that this process did not send, by method and reason: limit (too many concurrent calls to the "
    "service), caller (too many concurrent calls for one caller) or circuit (the circuit breaker is open).",
    ["method", "reason"],
)
CALL_CIRCUIT = Enum(
    "wallet_call_circuit",
    "State of the circuit breaker of a method: closed lets calls pass, opened refuses them, half-opened lets one trial "
    "call pass.",
    ["method"],
    states=STATES,
)
SPANS_DROPPED = Counter("wallet_spans_dropped", "Spans of traces that were dropped instead of sent to the collector.")
CONNECTIONS_IN_USE = Gauge("wallet_database_connections_in_use", "Database connections in use.")
CONNECTIONS_LIMIT = Gauge(
    "wallet_database_connections_limit", "Maximum number of database connections of this process; 0: no database."
)
CERTIFICATE_EXPIRES = Gauge(
    "wallet_tls_certificate_expiry_timestamp_seconds",
    "Time at which the TLS certificate of this process expires; 0: no TLS.",
)


def register_pool(in_use: Callable[[], int], limit: int) -> None:
    """Register the metrics of a connection pool; each scrape calls `in_use`."""
    CONNECTIONS_IN_USE.set_function(in_use)
    CONNECTIONS_LIMIT.set(limit)


class _LostLogLines(Collector):
    """Counter that each scrape reads. Incrementing a counter takes a lock, which a log call must not wait for."""

    def __init__(self) -> None:
        self.read: Callable[[], int] = lambda: 0

    def collect(self) -> Iterable[Metric]:
        description = "Log lines that were dropped because standard error was blocked."
        yield CounterMetricFamily("wallet_log_lines_lost", description, self.read())


_LOST_LOG_LINES = _LostLogLines()
REGISTRY.register(_LOST_LOG_LINES)


def count_lost_log_lines(read: Callable[[], int]) -> None:
    """Register the counter of lost log lines; each scrape calls `read`."""
    _LOST_LOG_LINES.read = read
