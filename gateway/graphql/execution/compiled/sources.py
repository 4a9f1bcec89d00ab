"""Fields whose resolver needs the source only: they are read without an `info`."""

from collections.abc import Callable, Mapping
from typing import Any

from graphql import GraphQLField, GraphQLObjectType


class SourceResolver:
    """Resolver that needs the source only. A plan calls the function itself."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        """Args:
        read: returns the value of the field for a source, such as `operator.attrgetter("name")`.
        """
        self.read = read

    def __call__(self, source: Any, _info: Any) -> Any:
        """Return the value of the field."""
        return self.read(source)


def source_reader(object_type: GraphQLObjectType, definition: GraphQLField, name: str) -> Callable[[Any], Any] | None:
    """Return the function that reads a field from its object; None if the field has another resolver.

    Args:
        object_type: type of the object.
        definition: the field in the schema.
        name: name of the field.
    """
    if name == "__typename":
        return _name_reader(object_type.name)
    if isinstance(definition.resolve, SourceResolver):
        return definition.resolve.read
    return _default_reader(name) if definition.resolve is None else None


def _default_reader(name: str) -> Callable[[Any], Any]:
    """Read a member as graphql-core's default resolver does, which also calls it if it is callable."""

    def read(source: Any) -> Any:
        return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)

    return read


def _name_reader(type_name: str) -> Callable[[Any], Any]:
    def read(_: Any) -> Any:
        return type_name

    return read
