"""gRPC client of the identity service."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from kit.rpc.channel import ClientLimits, RpcClient, open_channel
from kit.rpc.status import error_from_status
from kit.rpc.tls import TLS
from protos.wallet.identity.v1 import identity_pb2, identity_pb2_grpc
from subgraphs.identity.client.converters import tokens_from_proto, user_from_proto
from subgraphs.identity.client.types import Tokens, User
from wallet.errors import WalletError
from wallet.inputs import Secret

SERVICE: Final = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name
"""Full name of the gRPC service."""

_READS: Final = ("GetUser", "BatchGetUsers")
_LABEL: Final = "the identity service"


class IdentityClient:
    """Client of the identity service.

    `change_password` and the two reads of users are made for the current caller (`current_request`).

    Every method raises the `WalletError` that the service returns, Unavailable if the service cannot be reached, and
    DeadlineExceeded if the service does not respond in time. Reads are safe to retry.
    """

    def __init__(
        self, stub: "identity_pb2_grpc.IdentityServiceAsyncStub", limits: ClientLimits = ClientLimits()
    ) -> None:
        self._stub = stub
        self._rpc = RpcClient(_LABEL, limits)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, target: str, *, limits: ClientLimits = ClientLimits(), tls: TLS | None = None
    ) -> AsyncIterator["IdentityClient"]:
        """Yield a client. The client connects at its first call.

        Args:
            target: gRPC target of the service.
            limits: time-out, call limits and circuit breaker.
            tls: certificates; None: plaintext, on loopback only.
        """
        async with open_channel(target, SERVICE, _READS, tls, name="identity") as channel:
            yield cls(identity_pb2_grpc.IdentityServiceStub(channel), limits)

    async def register(self, username: str, password: Secret) -> User:
        """Register a user. After Unavailable, `authenticate` shows whether the user was created."""
        request = identity_pb2.RegisterRequest(username=username, password=password.text)
        response = await self._rpc.unary(self._stub.Register, request)
        return user_from_proto(response.user)

    async def authenticate(self, username: str, password: Secret) -> Tokens:
        """Log in: create a session. Safe to retry."""
        request = identity_pb2.AuthenticateRequest(username=username, password=password.text)
        response = await self._rpc.unary(self._stub.Authenticate, request)
        return tokens_from_proto(response.tokens)

    async def refresh(self, token: Secret) -> Tokens:
        """Exchange a refresh token for a new pair of tokens.

        A retry is safe for ten seconds. A later retry ends the session.
        """
        request = identity_pb2.RefreshRequest(refresh_token=token.text)
        response = await self._rpc.unary(self._stub.Refresh, request)
        return tokens_from_proto(response.tokens)

    async def revoke(self, token: Secret) -> None:
        """End the session of a refresh token. Safe to retry."""
        request = identity_pb2.RevokeRequest(refresh_token=token.text)
        await self._rpc.unary(self._stub.Revoke, request)

    async def change_password(self, current: Secret, new: Secret) -> None:
        """Change the password of the current caller and end the caller's other sessions. Safe to retry."""
        request = identity_pb2.ChangePasswordRequest(current_password=current.text, new_password=new.text)
        await self._rpc.unary(self._stub.ChangePassword, request)

    async def get_user(self, user_id: str) -> User:
        """Return a user."""
        request = identity_pb2.GetUserRequest(id=user_id)
        response = await self._rpc.unary(self._stub.GetUser, request)
        return user_from_proto(response.user)

    async def batch_get_users(self, ids: Sequence[str]) -> dict[str, User | WalletError]:
        """Return up to 1,000 users by id.

        The value is an error if the user does not exist or the caller may not read this user.
        """
        request = identity_pb2.BatchGetUsersRequest(ids=ids)
        response = await self._rpc.unary(self._stub.BatchGetUsers, request)
        return {
            result.key: user_from_proto(result.value) if result.HasField("value") else error_from_status(result.error)
            for result in response.results
        }
