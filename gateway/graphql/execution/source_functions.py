"""Fields of Strawberry's types that need their source only."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from strawberry.types.field import StrawberryField


def source_function(definition: Any) -> Callable[[Any], Any] | None:
    """Return the function that computes a field from its source, without Strawberry's `Info`.

    It reads an attribute, or it is the field's method if the method has no parameter except `self` and is not async.

    Args:
        definition: Strawberry's definition of the field; None for a field of graphql-core.

    Returns:
        The function; None if the field has another resolver or an extension.
    """
    if not isinstance(definition, StrawberryField) or definition.extensions:
        return None
    resolver = definition.base_resolver
    if resolver is None:
        return attrgetter(definition.python_name)
    has_self_only = len(resolver.signature.parameters) == 1 and resolver.self_parameter is not None
    return resolver.wrapped_func if has_self_only and not resolver.is_async else None  # type: ignore[return-value]
