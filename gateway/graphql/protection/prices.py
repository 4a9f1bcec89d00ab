"""Default costs of fields, in units of about three microseconds of the gateway's time."""

from typing import Any, Final

from graphql import GraphQLField, get_named_type, is_leaf_type
from strawberry.federation.schema_directives import Cost

from gateway.graphql.execution.source_functions import source_function

FIELD_COST: Final = 1
"""Cost of a field without a resolver, or whose resolver needs its source only, and of the value in the response."""

RESOLVER_COST: Final = 10
"""Cost of a field with a resolver: it may wait for a loader."""

ROW_COST: Final = 7
"""Cost of reading one row of a page or of statistics, without its fields: receive it, convert it, create objects."""

TEXT_BYTES_PER_UNIT: Final = 32
"""Bytes of a response key, or of a description in an introspection, that cost as much as a field."""

FREE_ARGUMENT_BYTES: Final = 1_024
"""Bytes of a field's arguments that the field's own cost includes. Ordinary arguments have fewer bytes."""

ARGUMENT_BYTES_PER_UNIT: Final = 32
"""Bytes of a field's arguments, above the free ones, that cost one unit. The gateway processes 70 bytes in a unit's
time, and the service that receives them takes about as long."""

SDL_BYTES_PER_UNIT: Final = 8
"""Bytes of the SDL that cost as much as a field. A router selects the SDL only once, so the price may be high."""

COST_EXTENSION: Final = "cost"
"""Key of a field's cost in the extensions of graphql-core, for a field without `@cost`."""


def key_cost(key: str) -> int:
    """Return the additional cost of a long response key. Every item of a response repeats it."""
    return len(key) // TEXT_BYTES_PER_UNIT


def argument_cost(size: int) -> int:
    """Return the cost of arguments of this size in bytes, for one execution of their field."""
    return max(0, size - FREE_ARGUMENT_BYTES) // ARGUMENT_BYTES_PER_UNIT


def default_cost(definition: Any) -> int:
    """Return the cost of a field without `@cost`.

    Args:
        definition: Strawberry's definition of the field; None for a field of graphql-core.
    """
    has_resolver = getattr(definition, "base_resolver", None) is not None
    return RESOLVER_COST if has_resolver and source_function(definition) is None else FIELD_COST


def add_cost_directive(field: GraphQLField, definition: Any) -> None:
    """Add `@cost` to a field if the directives' specification has another default than this gateway.

    The specification's default is 1 for objects and 0 for leaves. With the directive, federation routers estimate the
    same cost as this gateway.
    """
    cost = default_cost(definition)
    expected = 0 if is_leaf_type(get_named_type(field.type)) else FIELD_COST
    if cost != expected and not any(isinstance(each, Cost) for each in definition.directives):
        definition.directives.append(Cost(weight=cost))
