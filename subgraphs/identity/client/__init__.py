from subgraphs.identity.client.client import (
    SERVICE,
    IdentityClient,
    Tokens,
    User,
)

__all__ = [
    "SERVICE",
    "IdentityClient",
    "Tokens",
    "User",
]
