"""Users in the graph, on the client of identity.

The gateway merges what this package exports: `Query`, `Mutation`, `Subscription` and the entity types.
"""

from subgraphs.identity.graph.graph import (
    Query,
    User,
    UserLoader,
    user_loader,
)

__all__ = [
    "Query",
    "User",
    "UserLoader",
    "user_loader",
]
