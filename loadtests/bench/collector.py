"""A collector of traces that takes whatever it is sent, and looks at nothing: `python -m loadtests.bench.collector
host:port`.
"""

import asyncio
import sys

import grpc
import uvloop

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class _Collector(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self._export: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_take)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        return self._export if handler_call_details.method == _EXPORT else None


async def _take(_request: bytes, _context: object) -> bytes:
    return b""  # of protobuf, the message with nothing to say


async def _serve(listen: str) -> None:
    server = grpc.aio.server(handlers=[_Collector()])
    server.add_insecure_port(listen)
    await server.start()
    await asyncio.Event().wait()  # until it is ended


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
