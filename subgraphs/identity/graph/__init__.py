from subgraphs.identity.graph.graph import (
    UserLoader,
    user_loader,
)

__all__ = [
    "UserLoader",
    "user_loader",
]
