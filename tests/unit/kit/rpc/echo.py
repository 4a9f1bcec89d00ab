"""Echo service for tests of servers and clients; a function of the test handles the text of each call."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from kit.auth.access import READ_ACCESS, AccessPolicy
from kit.auth.principal import TokenVerifier
from kit.http.admin import HealthCheck
from kit.rpc.server import Service, grpc_server
from stack.ports import free_ports

SERVICE = "test.Echo"
POLICY: AccessPolicy = {"Say": READ_ACCESS, "Count": READ_ACCESS}

Say = Callable[[str], Awaitable[str]]


class Stub:
    """Stub of the echo service, which does not have the method `Lacking`."""

    def __init__(self, channel: grpc.aio.Channel, service: str = SERVICE) -> None:
        self.Say: grpc.aio.UnaryUnaryMultiCallable[StringValue, StringValue] = channel.unary_unary(
            f"/{service}/Say", StringValue.SerializeToString, StringValue.FromString
        )
        self.Lacking: grpc.aio.UnaryUnaryMultiCallable[StringValue, StringValue] = channel.unary_unary(
            f"/{service}/Lacking", StringValue.SerializeToString, StringValue.FromString
        )
        self.Count: grpc.aio.UnaryStreamMultiCallable[StringValue, StringValue] = channel.unary_stream(
            f"/{service}/Count", StringValue.SerializeToString, StringValue.FromString
        )


def registration(say: Say) -> Callable[[grpc.aio.Server], None]:
    """Return the function that registers the service on a server.

    `Say` returns the result of `say`, `Count` streams the numbers below the result.
    """

    async def unary(request: StringValue, _: Any) -> StringValue:
        return StringValue(value=await say(request.value))

    async def stream(request: StringValue, _: Any) -> AsyncIterator[StringValue]:
        for number in range(int(await say(request.value))):
            yield StringValue(value=str(number))
            await asyncio.sleep(0)

    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Say": grpc.unary_unary_rpc_method_handler(unary, StringValue.FromString, StringValue.SerializeToString),
        "Count": grpc.unary_stream_rpc_method_handler(stream, StringValue.FromString, StringValue.SerializeToString),
    }

    def register(server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        server.add_registered_method_handlers(SERVICE, methods)

    return register


@asynccontextmanager
async def serving(
    say: Say,
    verifier: TokenVerifier,
    target: str | None = None,
    policy: AccessPolicy = POLICY,
    checks: Mapping[str, HealthCheck] | None = None,
) -> AsyncIterator[str]:
    """Serve the echo service, on a free port unless a target is given; yield the target."""
    target = target or f"127.0.0.1:{free_ports(1)[0]}"
    async with grpc_server(target, verifier, {SERVICE: Service(registration(say), policy)}, checks=checks):
        yield target
