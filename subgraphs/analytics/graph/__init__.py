"""Operations, statistics and subscriptions in the graph. The resolvers call analytics through its client.

The gateway merges what this package exports: `Subscription` and the entity type `Account`.
"""

from subgraphs.analytics.graph.subscriptions import Subscription
from subgraphs.analytics.graph.types import Account

__all__ = [
    "Account",
    "Subscription",
]
