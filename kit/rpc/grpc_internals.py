"""Code that depends on non-public parts of gRPC for Python: names of methods, and stand-ins for gRPC's objects.

`tests/unit/kit/rpc/test_grpc_internals.py` fails if gRPC or its generated code changes one of these parts.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias, cast

import grpc

MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def method_name(method: object) -> str:
    """Return the full name of a stub's method, such as `wallet.bank.v1.BankService/GetBalance`.

    gRPC has no public attribute for it. The name is empty for a fake method of a test.
    """
    path: bytes = getattr(method, "_method", b"/")
    return path[1:].decode()


class ServerStandIn:
    """Takes a server's place when generated code registers a servicer, to wrap the servicer's methods.

    The handler of a servicer is wrapped once, at registration, while a gRPC interceptor would run on every call.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        wrap: Callable[[grpc.GenericRpcHandler], grpc.GenericRpcHandler],
        check_methods: Callable[[Collection[str]], None],
    ) -> None:
        """Args:
        server: gets the wrapped handlers.
        wrap: wraps the handler of all methods of a servicer.
        check_methods: called with the names of the servicer's methods; raises to reject them.
        """
        self._server = server
        self._wrap = wrap
        self._check_methods = check_methods

    def as_server(self) -> grpc.aio.Server:
        """Return the stand-in with the type that generated code expects."""
        return cast("grpc.aio.Server", self)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add the wrapped handlers to the server."""
        self._server.add_generic_rpc_handlers([self._wrap(each) for each in generic_rpc_handlers])

    def add_registered_method_handlers(
        self,
        service_name: str,  # noqa: ARG002  the signature of gRPC
        method_handlers: Mapping[str, MethodHandler],
    ) -> None:
        """Check the names of the methods. Generated code passes the unwrapped handlers again: they are not added
        to the server.
        """
        self._check_methods(method_handlers.keys())


class ChannelStandIn:
    """Takes a channel's place when a stub is created, so that each call can use another real channel.

    It implements only what stubs without request streams call.
    """

    def __init__(self, build: Callable[[Callable[[grpc.aio.Channel], Any]], Any]) -> None:
        """Args:
        build: gets a function that creates gRPC's callable of a method on a given channel; returns the callable that
            the stub uses.
        """
        self._build = build

    def as_channel(self) -> grpc.aio.Channel:
        """Return the stand-in with the type that stubs expect."""
        return cast("grpc.aio.Channel", self)

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """Return the callable of a unary method."""
        return self._build(lambda channel: channel.unary_unary(*arguments, **options))

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """Return the callable of a method with a stream of responses."""
        return self._build(lambda channel: channel.unary_stream(*arguments, **options))


class MethodStandIn:
    """Takes the place of a stub's method. A subclass calls `target`, which may be replaced.

    Attributes:
        target: gRPC's callable for the next call.
    """

    def __init__(self, target: Any) -> None:
        self.target = target
        self._method: bytes = getattr(target, "_method", b"/")  # for `method_name`
