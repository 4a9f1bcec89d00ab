"""gRPC server reflection, in version 1 of the protocol and in v1alpha, which older tools use.

grpcio-reflection has v1alpha only. The messages of both versions are equal, so one servicer serves both.
"""

from collections.abc import Iterable
from functools import cache
from typing import Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

_ALPHA_PACKAGE: Final = "grpc.reflection.v1alpha"
_PACKAGE: Final = "grpc.reflection.v1"
_SERVICE: Final = f"{_PACKAGE}.ServerReflection"


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Let clients list services and read their descriptors. Clients need no token.

    Args:
        server: serves the reflection.
        services: full names of the server's other services.
    """
    _describe()
    names = (*services, reflection.SERVICE_NAME, _SERVICE)
    reflection.enable_server_reflection(names, server)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {"ServerReflectionInfo": handler})])


@cache
def _describe() -> None:
    """Add the descriptors of version 1, those of v1alpha in another package, to the pool that reflection reads."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = _PACKAGE
    for message in file.message_type:
        for field in filter(_refers_to_a_type, message.field):
            field.type_name = _rename(field.type_name)
    for method in file.service[0].method:
        method.input_type, method.output_type = _rename(method.input_type), _rename(method.output_type)
    descriptor_pool.Default().Add(file)


def _refers_to_a_type(field: descriptor_pb2.FieldDescriptorProto) -> bool:
    return field.HasField("type_name")


def _rename(type_name: str) -> str:
    return type_name.replace(f".{_ALPHA_PACKAGE}.", f".{_PACKAGE}.")
