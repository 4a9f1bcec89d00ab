"""Completion of scalars and enums."""

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, TypeAlias

from graphql import (
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLID,
    GraphQLInt,
    GraphQLLeafType,
    GraphQLNamedType,
    GraphQLString,
    Undefined,
)
from graphql.pyutils import inspect

CompleteLeaf: TypeAlias = Callable[[Any], Any]
"""Converts a value, which is not null, for the response. It raises an error if the type cannot represent the value."""

_EXACT_CLASSES: Final[dict[GraphQLNamedType, type]] = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool}
_MIN_INT: Final = -(2**31)
_MAX_INT: Final = 2**31 - 1
_MAX_NAMES: Final = 100


def exact_class(type_: Any) -> type | None:
    """Return the Python class of values that a scalar keeps unchanged; None if it converts all values.

    Subclasses of it are converted.
    """
    return _EXACT_CLASSES.get(type_)


def compile_leaf(type_: GraphQLLeafType) -> CompleteLeaf:
    """Return the function that completes the values of a scalar or an enum."""
    coerce = type_.coerce_output_value

    def complete(value: Any) -> Any:
        coerced = coerce(value)
        if coerced is None or coerced is Undefined:
            call = f"{inspect(type_)}.coerce_output_value({inspect(value)})"
            raise TypeError(f"Expected `{call}` to return non-nullable value, returned: {inspect(coerced)}")
        return coerced

    if type_ is GraphQLInt:
        return _integer(complete)
    if isinstance(type_, GraphQLEnumType):
        return _enum(complete)
    return complete


def _integer(complete: CompleteLeaf) -> CompleteLeaf:
    def complete_integer(value: Any) -> Any:
        return value if value.__class__ is int and _MIN_INT <= value <= _MAX_INT else complete(value)

    return complete_integer


def _enum(complete: CompleteLeaf) -> CompleteLeaf:
    """Keep the names of the members of a Python enum by their identity: a look-up by value is slow, or inexact."""
    names: dict[int, tuple[Enum, Any]] = {}  # the member is kept too, so that its id stays its own

    def complete_enum(value: Any) -> Any:
        known = names.get(id(value))
        if known is not None:
            return known[1]
        name = complete(value)
        if isinstance(value, Enum) and len(names) < _MAX_NAMES:
            names[id(value)] = value, name
        return name

    return complete_enum
