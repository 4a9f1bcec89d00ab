"""Metrics that every process has. Each part defines its own beside these, in one commented place."""

from prometheus_client import Counter, Histogram

RPC_SECONDS = Histogram(
    "wallet_rpc_duration_seconds",
    "Calls served, by method and canonical status code.",
    ["method", "code"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

SPANS_DROPPED = Counter("wallet_spans_dropped", "Spans of traces that the collector did not take.")
