"""Private parts of gRPC that `kit.rpc.grpc_internals` depends on."""

from collections.abc import Collection
from importlib import import_module
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.rpc.grpc_internals import ChannelStandIn, MethodStandIn, ServerStandIn, method_name

NAMES = ["analytics", "bank", "card", "identity"]


def generated(name: str) -> tuple[type, str]:
    module = import_module(f"protos.wallet.{name}.v1.{name}_pb2_grpc")
    return getattr(module, f"{name.capitalize()}ServiceStub"), f"wallet.{name}.v1.{name.capitalize()}Service"


async def test_method_of_a_stub_has_its_name() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert method_name(stub.Check) == "grpc.health.v1.Health/Check"
        assert method_name(stub.Watch) == "grpc.health.v1.Health/Watch"
        assert method_name(MethodStandIn(stub.Check)) == "grpc.health.v1.Health/Check"


@pytest.mark.parametrize("name", NAMES)
async def test_generated_stub_needs_only_the_methods_of_the_channel_stand_in(name: str) -> None:
    stub, service = generated(name)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        methods = vars(stub(ChannelStandIn(lambda create: MethodStandIn(create(channel))).as_channel()))
    assert methods
    assert {name: method_name(method) for name, method in methods.items()} == {
        name: f"{service}/{name}" for name in methods
    }


async def test_generated_registration_passes_handlers_and_names_to_the_stand_in() -> None:
    server, names = grpc.aio.server(), list[Collection[str]]()
    wrapped: list[grpc.GenericRpcHandler] = []

    def wrap(handler: grpc.GenericRpcHandler) -> grpc.GenericRpcHandler:
        wrapped.append(handler)
        return handler

    stand_in = ServerStandIn(server, wrap, names.append)
    health_pb2_grpc.add_HealthServicer_to_server(health_pb2_grpc.HealthServicer(), stand_in.as_server())
    methods = set(health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name)
    assert [set(each) for each in names] == [methods]
    assert len(wrapped) == 1
