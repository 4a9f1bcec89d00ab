"""Converts domain values to `identity.proto` messages."""

from typing import Final

from kit.rpc.converters import time_to_proto
from protos.wallet.identity.v1 import identity_pb2
from subgraphs.identity.service.application.service import Tokens
from subgraphs.identity.service.domain.users import Role, User

_ROLES: Final = {
    Role.CUSTOMER: identity_pb2.ROLE_CUSTOMER,
    Role.OPERATOR: identity_pb2.ROLE_OPERATOR,
    Role.ADMIN: identity_pb2.ROLE_ADMIN,
}


def user_to_proto(user: User) -> identity_pb2.User:
    """Convert a user."""
    return identity_pb2.User(
        id=str(user.id),
        username=user.username,
        role=_ROLES[user.role],
        created_at=time_to_proto(user.created_at),
    )


def tokens_to_proto(tokens: Tokens) -> identity_pb2.Tokens:
    """Convert a pair of tokens."""
    return identity_pb2.Tokens(
        access_token=tokens.access,
        access_expires_at=time_to_proto(tokens.access_expires_at),
        refresh_token=tokens.refresh,
        refresh_expires_at=time_to_proto(tokens.refresh_expires_at),
    )
