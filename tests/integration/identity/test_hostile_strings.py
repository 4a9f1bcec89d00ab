"""Hostile strings in each string field of the identity service's requests."""

import grpc

from protos.wallet.identity.v1 import identity_pb2, identity_pb2_grpc
from tests.integration.hostile_strings import find_unexpected_errors
from tests.integration.identity.harness import RunningIdentity

SERVICE = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"]


async def test_hostile_string_is_never_an_internal_error(identity: RunningIdentity) -> None:
    metadata = (("authorization", f"Bearer {identity.keys.user('alice')}"),)
    async with grpc.aio.insecure_channel(identity.settings["identity_grpc_listen"]) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        assert await find_unexpected_errors(stub, SERVICE, metadata) == []
