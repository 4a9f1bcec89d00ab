"""Users and their tokens as callers see them: typed values in and out, typed errors."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from kit.rpc import converters
from kit.rpc.channel import ClientLimits, RpcClient, open_channel
from kit.rpc.status import error_from_status
from kit.rpc.tls import TLS
from protos.wallet.identity.v1 import identity_pb2, identity_pb2_grpc
from wallet.errors import WalletError
from wallet.inputs import Secret

SERVICE: Final = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name

_READS: Final = ("GetUser", "BatchGetUsers")
_WHAT: Final = "the identity service"

Role = Literal["CUSTOMER", "OPERATOR", "ADMIN"]

_ROLES: Final[dict[int, Role]] = {
    identity_pb2.ROLE_CUSTOMER: "CUSTOMER",
    identity_pb2.ROLE_OPERATOR: "OPERATOR",
    identity_pb2.ROLE_ADMIN: "ADMIN",
}


@dataclass(frozen=True, slots=True)
class User:
    """A user. `id` is the subject of their tokens, and the owner of their accounts."""

    id: str
    username: str
    role: Role
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a user who signed in is given. Its `repr` shows neither token."""

    access: str = field(repr=False)
    access_expires_at: datetime
    refresh: str = field(repr=False)
    refresh_expires_at: datetime


class IdentityClient:
    """Calls the identity service, and for users in the name of the current call's caller (`request_context.current`).

    Every method raises the `WalletError` that the service refused it with, Unavailable when it does not answer and
    DeadlineExceeded when it does not in time; reads are always safe to call again.
    """

    def __init__(
        self, stub: "identity_pb2_grpc.IdentityServiceAsyncStub", limits: ClientLimits = ClientLimits()
    ) -> None:
        self._stub = stub
        self._calls = RpcClient(_WHAT, limits)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, target: str, *, limits: ClientLimits = ClientLimits(), tls: TLS | None = None
    ) -> AsyncIterator["IdentityClient"]:
        """A client of the identity service at a gRPC target, by mutual TLS where it is given; connects when first
        called.
        """
        async with open_channel(target, SERVICE, _READS, tls, name="identity") as opened:
            yield cls(identity_pb2_grpc.IdentityServiceStub(opened), limits)

    async def register(self, username: str, password: Secret) -> User:
        """A new user. Where it is not known whether there is one now, `authenticate` tells."""
        request = identity_pb2.RegisterRequest(username=username, password=password.text)
        response = await self._calls.unary(self._stub.Register, request)
        return _user(response.user)

    async def authenticate(self, username: str, password: Secret) -> Tokens:
        """A new sign-in, safe to repeat."""
        request = identity_pb2.AuthenticateRequest(username=username, password=password.text)
        response = await self._calls.unary(self._stub.Authenticate, request)
        return _tokens(response.tokens)

    async def refresh(self, token: Secret) -> Tokens:
        """A new pair for a refresh token; safe to repeat at once, and not later."""
        request = identity_pb2.RefreshRequest(refresh_token=token.text)
        response = await self._calls.unary(self._stub.Refresh, request)
        return _tokens(response.tokens)

    async def revoke(self, token: Secret) -> None:
        """Ends the sign-in that a refresh token came from, safe to repeat."""
        request = identity_pb2.RevokeRequest(refresh_token=token.text)
        await self._calls.unary(self._stub.Revoke, request)

    async def user(self, user_id: str) -> User:
        """One user."""
        request = identity_pb2.GetUserRequest(id=user_id)
        response = await self._calls.unary(self._stub.GetUser, request)
        return _user(response.user)

    async def users(self, ids: Sequence[str]) -> dict[str, User | WalletError]:
        """Each user, or why the caller does not get it; at most 1,000."""
        request = identity_pb2.BatchGetUsersRequest(ids=ids)
        response = await self._calls.unary(self._stub.BatchGetUsers, request)
        return {
            result.key: _user(result.value) if result.HasField("value") else error_from_status(result.error)
            for result in response.results
        }


def _user(message: identity_pb2.User) -> User:
    return User(message.id, message.username, _ROLES[message.role], converters.time_from_proto(message.created_at))


def _tokens(message: identity_pb2.Tokens) -> Tokens:
    return Tokens(
        message.access_token,
        converters.time_from_proto(message.access_expires_at),
        message.refresh_token,
        converters.time_from_proto(message.refresh_expires_at),
    )
