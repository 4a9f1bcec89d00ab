"""Relay's nodes in the graph: objects of any type by their ids.

The gateway merges what this package exports: `Query` and the entity types.
"""

from subgraphs.nodes.graph.queries import Query
from subgraphs.nodes.graph.types import Account, TopUp, Transfer, User

__all__ = [
    "Account",
    "Query",
    "TopUp",
    "Transfer",
    "User",
]
