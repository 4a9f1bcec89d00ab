"""gRPC servicer: converts messages and calls the use cases."""

# ruff: noqa: D102, N802  identity.proto names and documents the methods
from typing import Any, Final
from uuid import UUID

import grpc

from kit.rpc import request_context, status
from protos.wallet.identity.v1 import identity_pb2, identity_pb2_grpc
from subgraphs.identity.service.api.converters import tokens_to_proto, user_to_proto
from subgraphs.identity.service.application.service import Identity
from wallet import inputs
from wallet.errors import InvalidInput, UserNotFound
from wallet.inputs import Secret

SERVICE: Final = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name

_MAX_KEYS: Final = 1_000


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """Servicer of `identity.proto`. It raises domain errors; `kit.rpc.server` converts them to statuses."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def register(self, server: grpc.aio.Server) -> None:
        """Register the servicer with a server."""
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(self, server)

    async def Register(
        self,
        request: identity_pb2.RegisterRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.RegisterResponse:
        user = await self._identity.register(request.username, Secret(request.password))
        return identity_pb2.RegisterResponse(user=user_to_proto(user))

    async def Authenticate(
        self,
        request: identity_pb2.AuthenticateRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.AuthenticateResponse:
        tokens = await self._identity.authenticate(request.username, Secret(request.password))
        return identity_pb2.AuthenticateResponse(tokens=tokens_to_proto(tokens))

    async def Refresh(
        self,
        request: identity_pb2.RefreshRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.RefreshResponse:
        tokens = await self._identity.refresh(Secret(request.refresh_token))
        return identity_pb2.RefreshResponse(tokens=tokens_to_proto(tokens))

    async def Revoke(
        self,
        request: identity_pb2.RevokeRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.RevokeResponse:
        await self._identity.revoke(Secret(request.refresh_token))
        return identity_pb2.RevokeResponse()

    async def ChangePassword(
        self,
        request: identity_pb2.ChangePasswordRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.ChangePasswordResponse:
        caller = request_context.current_principal()
        id_ = _parse_id(caller.subject)
        if id_ is None:
            raise UserNotFound(caller.subject)
        current, new = Secret(request.current_password), Secret(request.new_password)
        await self._identity.change_password(caller, id_, current, new)
        return identity_pb2.ChangePasswordResponse()

    async def GetUser(
        self,
        request: identity_pb2.GetUserRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.GetUserResponse:
        id_ = _parse_id(request.id)
        if id_ is None:
            raise UserNotFound(request.id)
        return identity_pb2.GetUserResponse(
            user=user_to_proto(await self._identity.get_user(request_context.current_principal(), id_))
        )

    async def BatchGetUsers(
        self,
        request: identity_pb2.BatchGetUsersRequest,
        context: Any,  # noqa: ARG002
    ) -> identity_pb2.BatchGetUsersResponse:
        if len(request.ids) > _MAX_KEYS:
            raise InvalidInput.for_field("ids", f"must have at most {_MAX_KEYS} entries")
        ids = {key: _parse_id(key) for key in request.ids}
        users = await self._identity.batch_get_users(
            request_context.current_principal(), [id_ for id_ in ids.values() if id_ is not None]
        )
        return identity_pb2.BatchGetUsersResponse(
            results=[
                identity_pb2.BatchGetUsersResponse.Result(key=key, value=user_to_proto(users[id_]))
                if id_ in users
                else identity_pb2.BatchGetUsersResponse.Result(key=key, error=status.error_to_status(UserNotFound(key)))
                for key, id_ in ids.items()
            ],
        )


def _parse_id(text: str) -> UUID | None:
    """Return the user id; None if the text is not a user id, such as the subject of another issuer."""
    try:
        return inputs.parse_uuid(text)
    except ValueError:
        return None
