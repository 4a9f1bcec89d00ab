"""Default costs of fields, in units of about three microseconds of the gateway's time."""

from typing import Any, Final

from graphql import GraphQLField, get_named_type, is_leaf_type
from strawberry.federation.schema_directives import Cost

FIELD_COST: Final = 1
"""Cost of a field that is an attribute of its object, and of the object or the text that it adds to the answer."""

RESOLVER_COST: Final = 10
"""Cost of a field with a resolver: it may wait for a loader."""


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
