"""Converts `identity.proto` messages to the client's values."""

from typing import Final

from kit.rpc.converters import time_from_proto
from protos.wallet.identity.v1 import identity_pb2
from subgraphs.identity.client.types import Role, Tokens, User

_ROLES: Final[dict[int, Role]] = {
    identity_pb2.ROLE_CUSTOMER: "CUSTOMER",
    identity_pb2.ROLE_OPERATOR: "OPERATOR",
    identity_pb2.ROLE_ADMIN: "ADMIN",
}


def user_from_proto(message: identity_pb2.User) -> User:
    """Convert a user."""
    return User(message.id, message.username, _ROLES[message.role], time_from_proto(message.created_at))


def tokens_from_proto(message: identity_pb2.Tokens) -> Tokens:
    """Convert a pair of tokens."""
    return Tokens(
        message.access_token,
        time_from_proto(message.access_expires_at),
        message.refresh_token,
        time_from_proto(message.refresh_expires_at),
    )
