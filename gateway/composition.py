"""The subgraphs' parts, merged into one graph.

A new subgraph is one line in `SUBGRAPHS`. Where several subgraphs define an entity, the merged one has the fields of
all of them, whichever part a resolver returns.
"""

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, Final

import strawberry
import structlog
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types import ExecutionContext
from strawberry.types.base import StrawberryObjectDefinition, get_object_definition
from strawberry.types.execution import PreExecutionError

import subgraphs.analytics.graph
import subgraphs.bank.graph
import subgraphs.card.graph
from gateway.errors import is_unexpected
from wallet.graph import ERRORS_AS_DATA, SCALARS

log = structlog.get_logger(__name__)

SUBGRAPHS: Final[dict[str, ModuleType]] = {
    "bank": subgraphs.bank.graph,
    "card": subgraphs.card.graph,
    "analytics": subgraphs.analytics.graph,
}

_ROOTS: Final = ("Query", "Mutation", "Subscription")


def compose(extensions: Sequence[Any] = ()) -> strawberry.Schema:
    """The one graph that the gateway serves.

    Args:
        extensions: classes or factories of Strawberry extensions.
    """
    query, mutation, subscription = (_merge_root(name) for name in _ROOTS)
    return _MergedSchema(
        query=query,
        mutation=mutation,
        subscription=subscription,
        # The merged entities come first: a name that is known stands for them, whichever part refers to it. That two
        # definitions of one name differ is the point here, so Strawberry's own check for it is off.
        types=_merged_entities(),
        config=StrawberryConfig(_unsafe_disable_same_type_validation=True, scalar_map=SCALARS),
        extensions=extensions,
        execution_context_class=_Execution,
        exception_handlers=ERRORS_AS_DATA,
    )


def _merge_root(name: str) -> Any:
    parts = tuple(getattr(module, name) for module in SUBGRAPHS.values() if hasattr(module, name))
    return strawberry.type(type(name, parts, {}))


def _merged_entities() -> list[Any]:
    """Each entity of the subgraphs once, with the fields of all its parts."""
    parts: dict[str, list[type]] = {}
    for module in SUBGRAPHS.values():
        for value in vars(module).values():
            definition = get_object_definition(value) if isinstance(value, type) else None
            if definition is not None and _keys(definition):
                parts.setdefault(definition.name, []).append(value)
    return [_merge_entity(name, classes) for name, classes in parts.items()]


def _merge_entity(name: str, classes: Sequence[type]) -> type:
    definitions = [get_object_definition(cls, strict=True) for cls in classes]
    keys = {key for definition in definitions for key in _keys(definition)}
    description = next((definition.description for definition in definitions if definition.description), None)
    return strawberry.federation.type(type(name, tuple(classes), {}), keys=sorted(keys), description=description)


def _keys(definition: StrawberryObjectDefinition) -> Iterable[str]:
    return [
        str(directive.fields)
        for directive in definition.directives or ()
        if isinstance(directive, strawberry.federation.schema_directives.Key)
    ]


class _Execution(StrawberryGraphQLCoreExecutionContext):
    """Leaves nothing behind.

    graphql-core's own is in a cycle with the helpers that it hands to resolvers: whatever it was given, variables and
    all, would stay in memory until the garbage collector comes by. It also makes every execution a quarter slower.
    """

    def build_response(self, data: dict[str, Any] | None) -> Any:
        response = super().build_response(data)
        del self.async_helpers
        return response


class _MergedSchema(strawberry.Schema):
    def _warn_for_federation_directives(self) -> None:
        """Entities are federation types here too."""

    async def _prepare_operation_async(self, context: ExecutionContext, extensions_runner: Any) -> Any:
        """Strawberry's own; what a hook of an extension raises is an error of the operation. A stream would break."""
        try:
            return await super()._prepare_operation_async(context, extensions_runner)
        except GraphQLError as error:
            return PreExecutionError(data=None, errors=[error])

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Logs what nobody expected; what is expected is the caller's to know."""
        for error in errors:
            if is_unexpected(error):
                operation = execution_context.operation_name if execution_context else None
                log.error("unexpected error", operation=operation, path=error.path, exc_info=error.original_error)
