"""The subgraphs' parts, merged into one graph.

A new subgraph is one line in `SUBGRAPHS`. Where several subgraphs define an entity, the merged one has the fields of
all of them, whichever part a resolver returns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from operator import attrgetter
from types import ModuleType
from typing import Any, Final, TypeAlias

import strawberry
import structlog
from graphql import (
    GraphQLError,
    GraphQLLeafType,
    GraphQLObjectType,
    GraphQLSchema,
    get_nullable_type,
    is_input_object_type,
    is_leaf_type,
    is_object_type,
)
from strawberry.extensions.runner import SchemaExtensionsRunner
from strawberry.federation.schema_directives import Key
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types import ExecutionContext
from strawberry.types.base import StrawberryMaybe, get_object_definition
from strawberry.types.execution import PreExecutionError
from strawberry.types.field import StrawberryField

import subgraphs.analytics.graph
import subgraphs.bank.graph
import subgraphs.card.graph
import subgraphs.identity.graph
from gateway.errors import is_unexpected
from gateway.graphql.federation.entities import entities_field
from wallet.graph import ERRORS_AS_DATA, SCALARS

log = structlog.get_logger(__name__)

SUBGRAPHS: Final[dict[str, ModuleType]] = {
    "bank": subgraphs.bank.graph,
    "card": subgraphs.card.graph,
    "analytics": subgraphs.analytics.graph,
    "identity": subgraphs.identity.graph,
}
"""By name; where several can resolve a reference to an entity, the first one does."""


Collected: TypeAlias = dict[tuple[GraphQLObjectType, int], Any]
"""The fields selected of a type, by the place of the selection in a document that lives as long. They are always the
same where no directive makes them depend on variables.
"""

NewRunner: TypeAlias = Callable[[ExecutionContext], SchemaExtensionsRunner]
"""Makes what stands around one execution."""


def compose(new_runner: NewRunner = SchemaExtensionsRunner, *, federation: bool = False) -> strawberry.Schema:
    """The one graph that the gateway serves.

    Args:
        new_runner: for each execution.
        federation: whether it can itself be a subgraph: with `_service` and `_entities`.
    """
    return _build(list(SUBGRAPHS.values()), new_runner, federation=federation)


def subgraph(name: str, new_runner: NewRunner = SchemaExtensionsRunner) -> strawberry.Schema:
    """One subgraph alone, as a federation router composes it with the others; `new_runner` as for `compose`."""
    return _build([SUBGRAPHS[name]], new_runner, federation=True)


def _build(modules: Sequence[ModuleType], new_runner: NewRunner, *, federation: bool) -> strawberry.Schema:
    entities = _entities(modules)
    fields = {"entities": entities_field(entities)} if federation and entities else {}
    kind = _Subgraph if federation else _Graph
    schema = kind(
        new_runner,
        query=_root("Query", modules, fields),
        mutation=_root("Mutation", modules),
        subscription=_root("Subscription", modules),
        # The merged entities come first: a name that is known stands for them, whichever part refers to it. That two
        # definitions of one name differ is the point there, so Strawberry's own check for it is off.
        types=entities,
        config=StrawberryConfig(_unsafe_disable_same_type_validation=len(modules) > 1, scalar_map=SCALARS),
        execution_context_class=_Execution,
        exception_handlers=ERRORS_AS_DATA,
    )
    _resolve_attributes(schema._schema)  # noqa: SLF001  Strawberry's converter cannot be told
    _read_plain_inputs(schema._schema)  # noqa: SLF001  as above
    return schema


def _root(name: str, modules: Sequence[ModuleType], fields: dict[str, Any] | None = None) -> Any:
    """The root type with the fields of all parts and these, or None."""
    parts = tuple(getattr(module, name) for module in modules if hasattr(module, name))
    return strawberry.type(type(name, parts, fields or {})) if parts or fields else None


def _entities(modules: Sequence[ModuleType]) -> list[type]:
    """Each entity once, by name, with the fields of all its parts."""
    parts: dict[str, list[type]] = {}
    for module in modules:
        for value in vars(module).values():
            definition = get_object_definition(value) if isinstance(value, type) else None
            if definition is not None and _keys(value):
                parts.setdefault(definition.name, []).append(value)
    return [classes[0] if len(classes) == 1 else _merge(name, classes) for name, classes in sorted(parts.items())]


def _merge(name: str, parts: Sequence[type]) -> type:
    definitions = [get_object_definition(part, strict=True) for part in parts]
    description = next((definition.description for definition in definitions if definition.description), None)
    # The last one of the same fields counts: one that some part resolves references by.
    keys = {str(key.fields): key for key in sorted((key for part in parts for key in _keys(part)), key=_is_resolvable)}
    directives = [keys[fields] for fields in sorted(keys)]
    return strawberry.federation.type(type(name, tuple(parts), {}), keys=directives, description=description)


def _keys(part: type) -> list[Key]:
    directives = get_object_definition(part, strict=True).directives or ()
    return [directive for directive in directives if isinstance(directive, Key)]


def _is_resolvable(key: Key) -> bool:
    return key.resolvable is not False


def _resolve_attributes(schema: GraphQLSchema) -> None:
    for type_ in filter(is_object_type, schema.type_map.values()):
        for field in type_.fields.values():
            if getattr(field.resolve, "_is_default", False):
                name = field.extensions[GraphQLCoreConverter.DEFINITION_BACKREF].python_name
                kind = get_nullable_type(field.type)
                field.resolve = _Leaf(name, kind) if is_leaf_type(kind) else _Attribute(name)


class _Attribute:
    """Resolves a field that is an attribute, without what is made for resolvers."""

    def __init__(self, name: str) -> None:
        self._attribute = attrgetter(name)

    def __call__(self, source: Any, _info: Any) -> Any:
        return self._attribute(source)


class _Leaf(_Attribute):
    """One with nothing below it, as most of a page's are: what is made for resolvers is a quarter of the time of a page
    of 1,000 operations.
    """

    def __init__(self, name: str, kind: GraphQLLeafType) -> None:
        super().__init__(name)
        self._coerce = kind.coerce_output_value

    def value(self, source: Any) -> Any:
        """What the response has; None where that is null, or an error."""
        try:
            value = self._attribute(source)
            return None if value is None else self._coerce(value)
        except Exception:  # noqa: BLE001  graphql-core comes upon it again, and knows where
            return None


def _read_plain_inputs(schema: GraphQLSchema) -> None:
    for type_ in filter(is_input_object_type, schema.type_map.values()):
        leaves = {
            name: field.extensions[GraphQLCoreConverter.DEFINITION_BACKREF]
            for name, field in type_.fields.items()
            if is_leaf_type(get_nullable_type(field.type))
        }
        if len(leaves) == len(type_.fields) and not any(
            isinstance(each.type, StrawberryMaybe) for each in leaves.values()
        ):
            type_.extensions[GraphQLCoreConverter.DEFINITION_BACKREF].from_input = _PlainInput(leaves)


class _PlainInput:
    """Makes inputs of a type whose fields are all leaves, which graphql-core has read by then. Strawberry would look at
    the type of each field anew, which is a tenth of the time of a mutation.
    """

    def __init__(self, fields: Mapping[str, StrawberryField]) -> None:
        self._names = {name: field.python_name for name, field in fields.items()}
        self._absent = dict.fromkeys(
            field.python_name
            for field in fields.values()
            if field.default_value is MISSING and field.default_factory is MISSING
        )

    def __call__(self, kind: type, value: Mapping[str, Any], _: Any) -> Any:
        return kind(**self._absent | {self._names[name]: each for name, each in value.items()})


class _Execution(StrawberryGraphQLCoreExecutionContext):
    """Leaves nothing behind.

    graphql-core's own is in a cycle with the helpers that it hands to resolvers: whatever it was given, variables and
    all, would stay in memory until the garbage collector comes by. It also makes every execution a quarter slower.
    """

    def __init__(self, *arguments: Any, collected: Collected | None = None, **options: Any) -> None:
        """Args:
        arguments: graphql-core's.
        collected: what executions of this document share; None: it is collected for each.
        options: graphql-core's.
        """
        super().__init__(*arguments, **options)
        self._collected = collected

    def collect_subfields(self, return_type: Any, field_details_list: Any) -> Any:
        """graphql-core's own, which is a twentieth of a mutation, once for each place of a document."""
        if self._collected is None or len(field_details_list) > 1:
            return super().collect_subfields(return_type, field_details_list)
        place = return_type, id(field_details_list[0].node)
        found = self._collected.get(place)
        if found is None:
            found = self._collected[place] = super().collect_subfields(return_type, field_details_list)
        return found

    def build_response(self, data: dict[str, Any] | None) -> Any:
        response = super().build_response(data)
        del self.async_helpers
        return response

    def execute_field(self, parent_type: Any, source: Any, field_details_list: Any, *place: Any) -> Any:
        """graphql-core's own, but for leaves that are there."""
        field = parent_type.fields.get(field_details_list[0].node.name.value)
        if field is not None and type(field.resolve) is _Leaf:
            value = field.resolve.value(source)
            if value is not None:
                return value
        return super().execute_field(parent_type, source, field_details_list, *place)


class _Schema(strawberry.Schema):
    def __init__(self, new_runner: NewRunner, **options: Any) -> None:
        super().__init__(**options)
        self._new_runner = new_runner

    def create_extensions_runner(self, execution_context: ExecutionContext, _: Any) -> SchemaExtensionsRunner:
        return self._new_runner(execution_context)

    def _execute_operation(self, context: ExecutionContext, runner: Any, *rest: Any) -> Any:
        """Strawberry's own, whose last argument is what to make the execution with."""
        rest[-1]["collected"] = getattr(runner, "collected", None)
        return super()._execute_operation(context, runner, *rest)

    async def _prepare_operation_async(self, context: ExecutionContext, extensions_runner: Any) -> Any:
        """Strawberry's own; what a runner raises is an error of the operation. A stream would break."""
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


class _Graph(_Schema):
    """For clients, to whom federation's directives say nothing."""

    def _collect_schema_directives(self, *types: Any) -> list[type]:
        super()._collect_schema_directives(*types)
        return []

    def _warn_for_federation_directives(self) -> None:
        pass


class _Subgraph(_Schema, strawberry.federation.Schema):
    """For routers."""
