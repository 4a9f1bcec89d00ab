"""The only module that uses internals of Strawberry: its schema class, its executor and its generated resolvers.

Strawberry may change these names in any release. `tests/unit/gateway/graphql/test_strawberry_internals.py` fails when
one of them is gone or has no effect any more.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING
from typing import Any, TypeAlias

import strawberry
import structlog
from graphql import (
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLSchema,
    get_nullable_type,
    is_input_object_type,
    is_leaf_type,
    is_object_type,
)
from strawberry.extensions.runner import SchemaExtensionsRunner
from strawberry.resolvers import is_default_resolver
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext, validate_document
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types import ExecutionContext
from strawberry.types.base import StrawberryMaybe
from strawberry.types.execution import PreExecutionError
from strawberry.types.field import StrawberryField

from gateway.errors import is_unexpected
from gateway.graphql.execution.graphql_core_internals import AttributeResolver, LeafResolver, ShortcutExecutor

__all__ = [
    "ClientSchema",
    "FederationSchema",
    "GraphSchema",
    "NewRunner",
    "SchemaExtensionsRunner",
    "has_operation_name",
    "schema_config",
    "strawberry_definition",
    "validate_document",
]

log = structlog.get_logger(__name__)

NewRunner: TypeAlias = Callable[[ExecutionContext], SchemaExtensionsRunner]
"""Creates the extensions runner of one execution."""


def schema_config(scalars: Mapping[object, Any], *, is_merged: bool) -> StrawberryConfig:
    """Return the configuration of a schema.

    Args:
        scalars: scalar definitions by Python type.
        is_merged: the schema has the classes of several subgraphs. Several classes with one GraphQL name are intended
            then, so Strawberry's check for them is off.
    """
    return StrawberryConfig(_unsafe_disable_same_type_validation=is_merged, scalar_map=dict(scalars))


def strawberry_definition(core: Any) -> Any:
    """Return Strawberry's definition of a type or field of graphql-core, or None."""
    return core.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)


def has_operation_name(context: ExecutionContext) -> bool:
    """Whether the request names its operation. Otherwise `context.operation_name` is the document's first operation."""
    return bool(context._provided_operation_name)  # noqa: SLF001


class _Executor(ShortcutExecutor, StrawberryGraphQLCoreExecutionContext):
    """Strawberry's executor with the shortcuts of `ShortcutExecutor`."""


class GraphSchema(strawberry.Schema):
    """Schema with a replaceable runner, fast attribute resolvers, and a log line for unexpected errors.

    Attributes:
        core_schema: graphql-core's schema.
    """

    core_schema: GraphQLSchema

    def __init__(self, new_runner: NewRunner = SchemaExtensionsRunner, **options: Any) -> None:
        """Args:
        new_runner: creates the extensions runner of each execution.
        options: arguments of Strawberry's schema.
        """
        super().__init__(execution_context_class=_Executor, **options)
        self._new_runner = new_runner
        self.core_schema = self._schema
        _use_attribute_resolvers(self.core_schema)
        _use_plain_inputs(self.core_schema)

    def create_extensions_runner(self, execution_context: ExecutionContext, _: Any) -> SchemaExtensionsRunner:
        """Return the runner instead of Strawberry's own, which creates context managers for each hook."""
        return self._new_runner(execution_context)

    def _execute_operation(self, context: ExecutionContext, runner: Any, *rest: Any) -> Any:
        """Pass the runner's `subfields` to the executor. The last argument has the executor's keyword arguments."""
        rest[-1]["subfields"] = getattr(runner, "subfields", None)
        return super()._execute_operation(context, runner, *rest)

    async def _prepare_operation_async(self, context: ExecutionContext, extensions_runner: Any) -> Any:
        """Convert a GraphQLError of the runner to a result. An exception would end a stream without a response."""
        try:
            return await super()._prepare_operation_async(context, extensions_runner)
        except GraphQLError as error:
            return PreExecutionError(data=None, errors=[error])

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log unexpected errors. Expected ones are for the caller only."""
        for error in errors:
            if is_unexpected(error):
                operation = execution_context.operation_name if execution_context else None
                log.error("unexpected error", operation=operation, path=error.path, exc_info=error.original_error)


class ClientSchema(GraphSchema):
    """Schema for clients: federation directives are left out."""

    def _collect_schema_directives(self, *types: Any) -> list[type]:
        super()._collect_schema_directives(*types)
        return []

    def _warn_for_federation_directives(self) -> None:
        pass


class FederationSchema(GraphSchema, strawberry.federation.Schema):
    """Schema for federation routers: with `_service` and the federation directives."""


def _use_attribute_resolvers(schema: GraphQLSchema) -> None:
    """Replace Strawberry's default resolvers by faster ones that only read an attribute."""
    for type_ in filter(is_object_type, schema.type_map.values()):
        for field in type_.fields.values():
            if field.resolve is not None and is_default_resolver(field.resolve):
                name = strawberry_definition(field).python_name
                nullable = get_nullable_type(field.type)
                field.resolve = LeafResolver(name, nullable) if is_leaf_type(nullable) else AttributeResolver(name)


def _use_plain_inputs(schema: GraphQLSchema) -> None:
    """Replace Strawberry's conversion of inputs that have only scalars and enums by `_PlainInput`."""
    for type_ in filter(is_input_object_type, schema.type_map.values()):
        if _is_plain(type_):
            fields = {name: strawberry_definition(field) for name, field in type_.fields.items()}
            strawberry_definition(type_).from_input = _PlainInput(fields)


def _is_plain(type_: GraphQLInputObjectType) -> bool:
    return all(
        is_leaf_type(get_nullable_type(field.type))
        and not isinstance(strawberry_definition(field).type, StrawberryMaybe)
        for field in type_.fields.values()
    )


class _PlainInput:
    """Conversion of an input that has only scalars and enums, which graphql-core has already coerced.

    Strawberry's own conversion resolves the type of each field again, which takes a tenth of a mutation's time.
    """

    def __init__(self, fields: Mapping[str, StrawberryField]) -> None:
        self._names = {name: field.python_name for name, field in fields.items()}
        self._absent = dict.fromkeys(
            field.python_name
            for field in fields.values()
            if field.default_value is MISSING and field.default_factory is MISSING
        )

    def __call__(self, input_type: type, value: Mapping[str, Any], _: Any) -> Any:
        return input_type(**self._absent | {self._names[name]: each for name, each in value.items()})
