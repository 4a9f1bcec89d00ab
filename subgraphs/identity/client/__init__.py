"""gRPC client of the identity service, for the gateway."""

from subgraphs.identity.client.client import SERVICE, IdentityClient
from subgraphs.identity.client.types import Role, Tokens, User

__all__ = [
    "SERVICE",
    "IdentityClient",
    "Role",
    "Tokens",
    "User",
]
