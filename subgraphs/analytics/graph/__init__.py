"""Operations, statistics and live feeds in the graph, on the client of analytics.

The gateway merges what this package exports: `Query`, `Mutation`, `Subscription` and the entity types.
"""

from subgraphs.analytics.graph.graph import (
    Account,
    Subscription,
)

__all__ = [
    "Account",
    "Subscription",
]
