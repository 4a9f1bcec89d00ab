"""Access rules of the graph's root fields."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from graphql import GraphQLSchema

from gateway.policy import GRAPH_RULES
from kit.auth.access import AccessRule
from kit.rpc import request_context


def guard_root_fields(schema: GraphQLSchema) -> None:
    """Check the caller before each root field is resolved or subscribed to.

    Raises:
        KeyError: a root field has no access rule.
    """
    for root in (schema.query_type, schema.mutation_type):
        for name, field in root.fields.items() if root else ():
            field.resolve = _guard(GRAPH_RULES[f"{root}.{name}"], field.resolve)
    for name, field in schema.subscription_type.fields.items() if schema.subscription_type else ():
        field.subscribe = _guard(GRAPH_RULES[f"{schema.subscription_type}.{name}"], field.subscribe)


def _guard(rule: AccessRule, resolve: Any) -> Callable[..., Any]:
    @wraps(resolve)
    def resolve_for_caller(source: Any, info: Any, **arguments: Any) -> Any:
        rule.check(request_context.current_principal())
        return resolve(source, info, **arguments)

    return resolve if rule.is_public else resolve_for_caller
