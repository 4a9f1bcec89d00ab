"""Operations, statistics and subscriptions in the graph. The resolvers call analytics through its client.

The gateway merges what this package exports: `Subscription` and the entity type `Account`.
"""

from subgraphs.analytics.graph.loaders import (
    OperationPageLoader,
    StatisticsLoader,
    operation_page_loader,
    statistics_loader,
)
from subgraphs.analytics.graph.subscriptions import Subscription
from subgraphs.analytics.graph.types import Account

__all__ = [
    "Account",
    "OperationPageLoader",
    "StatisticsLoader",
    "Subscription",
    "operation_page_loader",
    "statistics_loader",
]
