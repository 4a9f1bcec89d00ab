"""Card top-ups in the graph, on the client of card.

The gateway merges what this package exports: `Query`, `Mutation`, `Subscription` and the entity types.
"""

from subgraphs.card.graph.graph import (
    Account,
    Mutation,
    Query,
    Subscription,
    TopUp,
    TopUpConnection,
    TopUpLoader,
    Transfer,
    top_up_loader,
)

__all__ = [
    "Account",
    "Mutation",
    "Query",
    "Subscription",
    "TopUp",
    "TopUpConnection",
    "TopUpLoader",
    "Transfer",
    "top_up_loader",
]
