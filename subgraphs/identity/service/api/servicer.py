"""Proto to domain and back, nothing else."""

# ruff: noqa: D102, N802  the methods are identity.proto's, which names and documents them
from typing import Any, Final
from uuid import UUID

import grpc

from kit.rpc import converters, request_context, status
from protos.wallet.identity.v1 import identity_pb2, identity_pb2_grpc
from subgraphs.identity.service.application.service import Identity, Tokens
from subgraphs.identity.service.domain.model import Role, User
from wallet import inputs
from wallet.errors import InvalidInput, UserNotFound
from wallet.inputs import Secret

SERVICE: Final = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name

_MAX_KEYS: Final = 1_000
_ROLES: Final = {
    Role.CUSTOMER: identity_pb2.ROLE_CUSTOMER,
    Role.OPERATOR: identity_pb2.ROLE_OPERATOR,
    Role.ADMIN: identity_pb2.ROLE_ADMIN,
}


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """`identity.proto`, served. Errors are raised as they are; `kit.rpc.server` makes statuses of them."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the service to a server."""
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(self, server)

    async def Register(
        self,
        request: identity_pb2.RegisterRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.RegisterResponse:
        user = await self._identity.register(request.username, Secret(request.password))
        return identity_pb2.RegisterResponse(user=_user(user))

    async def Authenticate(
        self,
        request: identity_pb2.AuthenticateRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.AuthenticateResponse:
        tokens = await self._identity.authenticate(request.username, Secret(request.password))
        return identity_pb2.AuthenticateResponse(tokens=_tokens(tokens))

    async def Refresh(
        self,
        request: identity_pb2.RefreshRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.RefreshResponse:
        tokens = await self._identity.refresh(Secret(request.refresh_token))
        return identity_pb2.RefreshResponse(tokens=_tokens(tokens))

    async def Revoke(
        self,
        request: identity_pb2.RevokeRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.RevokeResponse:
        await self._identity.revoke(Secret(request.refresh_token))
        return identity_pb2.RevokeResponse()

    async def GetUser(
        self,
        request: identity_pb2.GetUserRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.GetUserResponse:
        id_ = _id(request.id)
        if id_ is None:
            raise UserNotFound(request.id)
        return identity_pb2.GetUserResponse(
            user=_user(await self._identity.user(request_context.current_principal(), id_))
        )

    async def BatchGetUsers(
        self,
        request: identity_pb2.BatchGetUsersRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.BatchGetUsersResponse:
        if len(request.ids) > _MAX_KEYS:
            raise InvalidInput.for_field("ids", f"must be at most {_MAX_KEYS}")
        ids = {key: _id(key) for key in request.ids}
        found = await self._identity.users(
            request_context.current_principal(), [id_ for id_ in ids.values() if id_ is not None]
        )
        return identity_pb2.BatchGetUsersResponse(
            results=[
                identity_pb2.BatchGetUsersResponse.Result(key=key, value=_user(found[id_]))
                if id_ in found
                else identity_pb2.BatchGetUsersResponse.Result(key=key, error=status.error_to_status(UserNotFound(key)))
                for key, id_ in ids.items()
            ],
        )


def _id(text: str) -> UUID | None:
    """The id; None for the name of somebody whom another issuer knows, and we do not."""
    try:
        return inputs.parse_uuid(text)
    except ValueError:
        return None


def _user(user: User) -> identity_pb2.User:
    return identity_pb2.User(
        id=str(user.id),
        username=user.username,
        role=_ROLES[user.role],
        created_at=converters.time_to_proto(user.created_at),
    )


def _tokens(tokens: Tokens) -> identity_pb2.Tokens:
    return identity_pb2.Tokens(
        access_token=tokens.access,
        access_expires_at=converters.time_to_proto(tokens.access_expires_at),
        refresh_token=tokens.refresh,
        refresh_expires_at=converters.time_to_proto(tokens.refresh_expires_at),
    )
