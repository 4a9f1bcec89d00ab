"""Scenarios of the load tests. Each module has one Locust user class."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final, cast

_USER_CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "rest": ("rest", "RestTransfers"),
    "batches": ("batches", "BatchTransfers"),
    "graphql": ("graphql", "GraphQLTransfers"),
    "grpc": ("grpc", "GrpcTransfers"),
    "topups": ("topups", "TopUps"),
    "reads": ("reads", "Reads"),
    "subscribers": ("subscribers", "Subscribers"),
}
NAMES: Final = tuple(_USER_CLASSES)


def load_user_class(name: str) -> type:
    """Return the user class of a scenario.

    Only this scenario's module is imported, because the gRPC module patches gRPC for gevent on import.

    Raises:
        KeyError: no scenario has that name.
    """
    module, user = _USER_CLASSES[name]
    return cast("type", getattr(import_module(f"{__name__}.{module}"), user))
