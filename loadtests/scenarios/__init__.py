"""What people do. Each scenario is a Locust user, and fits on a screen."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final, cast

_WHERE: Final[Mapping[str, tuple[str, str]]] = {
    "rest": ("rest", "RestTransfers"),
    "graphql": ("graphql", "GraphQLTransfers"),
    "grpc": ("grpc", "GrpcTransfers"),
    "topups": ("topups", "TopUps"),
    "reads": ("reads", "Reads"),
    "subscribers": ("subscribers", "Subscribers"),
}
NAMES: Final = tuple(_WHERE)


def scenario(name: str) -> type:
    """The scenario's user. Only what is named is imported: gRPC patches itself for gevent when it is.

    Raises:
        KeyError: there is none of that name.
    """
    module, user = _WHERE[name]
    return cast("type", getattr(import_module(f"{__name__}.{module}"), user))
