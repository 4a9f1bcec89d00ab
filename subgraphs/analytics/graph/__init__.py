"""Operations, statistics and subscriptions in the graph, on the client of analytics.

The gateway merges what this package exports: `Query`, `Mutation`, `Subscription` and the entity types.
"""

from subgraphs.analytics.graph.subscriptions import Subscription
from subgraphs.analytics.graph.types import Account

__all__ = [
    "Account",
    "Subscription",
]
