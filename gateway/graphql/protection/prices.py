"""Default costs of fields, in units of about three microseconds of the gateway's time."""

from typing import Any, Final

from graphql import GraphQLField, get_named_type, is_leaf_type
from strawberry.federation.schema_directives import Cost

FIELD_COST: Final = 1
"""Cost of a field that is an attribute of its object, and of the object or the text that it adds to the response."""

RESOLVER_COST: Final = 10
"""Cost of a field with a resolver: it may wait for a loader."""

ROW_COST: Final = 7
"""Cost of a row that a page or statistics read, without its fields: it is received, converted and put into objects."""

TEXT_BYTES_PER_UNIT: Final = 32
"""Bytes of a response key, or of a description in an introspection, that cost as much as a field."""

FREE_ARGUMENT_BYTES: Final = 1_024
"""Bytes of a field's arguments that its own cost includes: those of all ordinary fields."""

ARGUMENT_BYTES_PER_UNIT: Final = 32
"""Bytes of a field's arguments above the free ones that cost as much as a field. 70 bytes take a unit's time in the
gateway, and about as long in the service that they are sent to."""

SDL_BYTES_PER_UNIT: Final = 8
"""Bytes of the SDL that cost as much as a field. A router reads it once, so that aliases may be expensive."""

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
    return FIELD_COST if getattr(definition, "base_resolver", None) is None else RESOLVER_COST


def add_cost_directive(field: GraphQLField, definition: Any) -> None:
    """Add `@cost` to a field if the directives' specification has another default than this gateway.

    The specification's default is 1 for objects and 0 for leaves. Federation routers then estimate the same cost.
    """
    cost = default_cost(definition)
    expected = 0 if is_leaf_type(get_named_type(field.type)) else FIELD_COST
    if cost != expected and not any(isinstance(each, Cost) for each in definition.directives):
        definition.directives.append(Cost(weight=cost))
