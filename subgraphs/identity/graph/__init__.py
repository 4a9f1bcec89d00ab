"""Users in the graph. The resolvers run in the gateway and call the identity service through its client.

The gateway merges what this package exports: `Query` and the entity type.
"""

from subgraphs.identity.graph.loaders import UserLoader, user_loader
from subgraphs.identity.graph.queries import Query
from subgraphs.identity.graph.types import User

__all__ = [
    "Query",
    "User",
    "UserLoader",
    "user_loader",
]
