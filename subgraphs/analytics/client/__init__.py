"""Typed gRPC client of analytics, for the gateway, load tests and benchmarks."""

from subgraphs.analytics.client.client import SERVICE, AnalyticsClient
from subgraphs.analytics.client.operation import Operation
from subgraphs.analytics.client.types import (
    OperationFilter,
    OperationPage,
    OperationPageRequest,
    Statistics,
    StatisticsBucket,
    StreamStart,
    Turnover,
    TypeTurnover,
)

__all__ = [
    "SERVICE",
    "AnalyticsClient",
    "Operation",
    "OperationFilter",
    "OperationPage",
    "OperationPageRequest",
    "Statistics",
    "StatisticsBucket",
    "StreamStart",
    "Turnover",
    "TypeTurnover",
]
