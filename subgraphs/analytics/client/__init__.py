from subgraphs.analytics.client.client import (
    SERVICE,
    AnalyticsClient,
    Operation,
    OperationFilter,
    OperationPage,
    Statistics,
    StatisticsBucket,
    Turnover,
)

__all__ = [
    "SERVICE",
    "AnalyticsClient",
    "Operation",
    "OperationFilter",
    "OperationPage",
    "Statistics",
    "StatisticsBucket",
    "Turnover",
]
