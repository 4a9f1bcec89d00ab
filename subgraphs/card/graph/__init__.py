"""Card top-ups in the graph. The resolvers run in the gateway and call the card service through its client.

The gateway merges what this package exports: `Query`, `Mutation`, `Subscription` and the entity types.
"""

from subgraphs.card.graph.loaders import TopUpLoader, TopUpPageLoader, top_up_loader, top_up_page_loader
from subgraphs.card.graph.mutations import Mutation
from subgraphs.card.graph.queries import Query
from subgraphs.card.graph.subscriptions import Subscription
from subgraphs.card.graph.types import Account, TopUp, TopUpConnection, Transfer

__all__ = [
    "Account",
    "Mutation",
    "Query",
    "Subscription",
    "TopUp",
    "TopUpConnection",
    "TopUpLoader",
    "TopUpPageLoader",
    "Transfer",
    "top_up_loader",
    "top_up_page_loader",
]
