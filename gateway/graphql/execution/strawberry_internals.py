"""The only module that uses internals of Strawberry: its schema class, its executor and its generated resolvers.

Strawberry may change these internals in any release. `tests/unit/gateway/graphql/test_strawberry_internals.py` fails if
one of them is missing or no longer has an effect.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING
from functools import partial
from typing import Any, Final, TypeAlias

import strawberry
import structlog
from graphql import (
    DocumentNode,
    GraphQLArgument,
    GraphQLError,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    Undefined,
    get_named_type,
    get_nullable_type,
    is_input_object_type,
    is_interface_type,
    is_leaf_type,
    is_object_type,
    is_union_type,
)
from strawberry.extensions.runner import SchemaExtensionsRunner
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule
from strawberry.types import ExecutionContext
from strawberry.types.base import StrawberryMaybe
from strawberry.types.execution import PreExecutionError
from strawberry.types.field import StrawberryField
from strawberry.types.graphql import OperationType
from strawberry.types.scalar import ScalarDefinition, ScalarWrapper

from gateway.errors import INVALID_GRAPHQL, METHOD_NOT_ALLOWED, OperationRefused, is_request_error, is_unexpected
from gateway.graphql.execution.compiled import CompiledOperation, NotCompilable, SourceResolver
from gateway.graphql.execution.graphql_core_internals import CoreExecutor
from gateway.graphql.execution.source_functions import source_function
from gateway.graphql.protection.prices import COST_EXTENSION, SDL_BYTES_PER_UNIT, add_cost_directive

__all__ = [
    "STRAWBERRY_RULES",
    "ClientSchema",
    "FederationSchema",
    "GraphSchema",
    "InvalidDocument",
    "NewRunner",
    "PreparingRunner",
    "SchemaExtensionsRunner",
    "check_operation_type",
    "requested_operation_name",
    "schema_config",
    "strawberry_definition",
]

STRAWBERRY_RULES: Final = (MaybeNullValidationRule, OneOfInputValidationRule)
"""Validation rules that Strawberry adds to graphql-core's."""

_FEDERATION_VERSION: Final = "2.9"
"""The first version of the federation specification with `@cost` and `@listSize`: not all routers know later ones."""

_MAX_LOGGED_ERRORS: Final = 5
"""Maximum number of unexpected errors of one execution that are logged with a traceback. Logging one takes 1 ms."""

log = structlog.get_logger(__name__)


class InvalidDocument(Exception):
    """The document of an operation is not valid.

    Attributes:
        errors: validation errors.
    """

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__()
        self.errors = errors


NewRunner: TypeAlias = Callable[[ExecutionContext], SchemaExtensionsRunner]
"""Creates the extensions runner of one execution."""


def schema_config(scalars: Mapping[object, Any], *, is_merged: bool) -> StrawberryConfig:
    """Return the configuration of a schema.

    Args:
        scalars: definitions by Python type of scalars that are text for clients.
        is_merged: the schema has the classes of several subgraphs, so several classes may have the same GraphQL name.
            Strawberry's check for such classes is off then.
    """
    return StrawberryConfig(
        _unsafe_disable_same_type_validation=is_merged,
        scalar_map={name: _text_scalar(definition) for name, definition in scalars.items()},  # type: ignore[misc]
    )


def _text_scalar(definition: ScalarDefinition) -> ScalarWrapper:
    """Return a scalar that is text for clients: Strawberry's generator of clients needs the Python type."""
    scalar = ScalarWrapper(str)
    scalar._scalar_definition = definition  # noqa: SLF001  Strawberry's decorator sets it in the same way
    return scalar


def strawberry_definition(core: Any) -> Any:
    """Return Strawberry's definition of a type or field of graphql-core, or None."""
    return core.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)


def requested_operation_name(context: ExecutionContext) -> str | None:
    """Return the operation name in the request, or None.

    Without a name in the request, `context.operation_name` is the name of the first operation.
    """
    name: str | None = context._provided_operation_name  # noqa: SLF001
    return name


_OPERATION_TYPES: Final = {each.value: each for each in OperationType}


def check_operation_type(context: ExecutionContext, type_name: str) -> None:
    """Check that the transport executes operations of this type: `query`, `mutation` or `subscription`.

    Raises:
        OperationRefused: the transport does not execute operations of this type.
    """
    operation_type = _OPERATION_TYPES[type_name]
    if operation_type not in context.allowed_operations:
        raise _not_allowed(operation_type)


class PreparingRunner(SchemaExtensionsRunner):
    """Runner with a method `prepare` that replaces Strawberry's parsing and validation.

    Attributes:
        plan: the compiled operation; None if graphql-core executes it.
    """

    plan: CompiledOperation | None = None

    async def prepare(self) -> None:
        """Set a valid document in the execution context, or refuse the operation.

        Raises:
            GraphQLError: the request is refused.
            InvalidDocument: the document has validation errors.
        """
        raise NotImplementedError


class _Info(GraphQLResolveInfo[Any]):
    """graphql-core's `info`, with the attribute that Strawberry's `Info.input_extensions` reads."""

    operation_extensions: dict[str, Any] | None = None


def _info_builder(operation_extensions: dict[str, Any] | None) -> Callable[..., Any]:
    """Return the function that builds the `info` of resolvers in one execution."""
    if not operation_extensions:
        return _Info

    def new_info(*members: Any) -> _Info:
        info = _Info(*members)
        info.operation_extensions = operation_extensions
        return info

    return new_info


def _execute_plan(
    plan: CompiledOperation,
    execute: Callable[..., Any],
    schema: GraphQLSchema,
    document: DocumentNode,
    *,
    operation_extensions: dict[str, Any] | None,
    **options: Any,
) -> Any:
    """Execute a compiled operation, or let `execute` do it if the operation is not compiled for its variables.

    The arguments after `execute` are those that Strawberry calls it with.
    """
    new_info = _info_builder(operation_extensions)
    try:
        return plan.execute(options["root_value"], options["context_value"], options["variable_values"], new_info)
    except NotCompilable:
        return execute(schema, document, operation_extensions=operation_extensions, **options)


class _Executor(CoreExecutor, StrawberryGraphQLCoreExecutionContext):
    """Executor of operations and of the events of subscriptions.

    Attributes:
        plan: the compiled subscription, which executes the events; None if graphql-core executes them.
    """

    plan: CompiledOperation | None = None

    def execute_operation(self, serially: bool | None = None) -> Any:
        """Execute the operation with graphql-core, or an event with the plan."""
        if self.plan is not None:
            try:
                return self.plan.execute_event(self, _info_builder(self.operation_extensions))
            except NotCompilable:
                self.plan = None
        return super().execute_operation(serially)


class _SubscriptionExecutor:
    """Builds the `_Executor` of a subscription with its plan, because Strawberry passes no arguments of ours to it.

    The runner loads the document after the call of `_stream` and before the call of `build`, so `build` reads the plan.
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def build(self, *arguments: Any, **options: Any) -> Any:
        executor = _Executor.build(*arguments, **options)
        if isinstance(executor, _Executor):
            executor.plan = _plan(self._runner)
        return executor


def _plan(runner: Any) -> CompiledOperation | None:
    plan: CompiledOperation | None = getattr(runner, "plan", None)
    return plan


class GraphSchema(strawberry.Schema):
    """Schema with a replaceable runner, resolvers without an `info`, and a log line for unexpected errors.

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
        _remove_null_defaults(self.core_schema)
        _use_source_resolvers(self.core_schema)
        _use_plain_inputs(self.core_schema)
        _name_arguments(self.core_schema, self.config)

    def create_extensions_runner(self, execution_context: ExecutionContext, _: Any) -> SchemaExtensionsRunner:
        """Return the runner instead of Strawberry's own, which creates context managers for each hook."""
        return self._new_runner(execution_context)

    async def _execute_operation(self, context: ExecutionContext, runner: Any, *rest: Any) -> Any:
        """Execute the runner's plan, if it has one.

        The last two arguments are the function that executes the operation, and the dict of its further arguments.

        The executor finds invalid variables here. The result is then a request error, as for an invalid document.
        """
        middleware, execute, options = rest
        options["max_coercion_errors"] = 1  # the runner describes invalid variables itself
        plan = _plan(runner)
        if plan is not None:
            execute = partial(_execute_plan, plan, execute)
        result: Any = await super()._execute_operation(context, runner, middleware, execute, options)
        if result.errors and is_request_error(result.data, result.errors):
            context.result = result = PreExecutionError(data=None, errors=result.errors)
        return result

    def _stream(self, execution_context: ExecutionContext, extensions_runner: Any, *rest: Any, **options: Any) -> Any:
        """Execute the events of a subscription with the runner's plan, if it has one."""
        options["execution_context_class"] = _SubscriptionExecutor(extensions_runner)
        return super()._stream(execution_context, extensions_runner, *rest, **options)

    async def _prepare_operation_async(self, context: ExecutionContext, extensions_runner: Any) -> Any:
        """Let the runner prepare the operation, and convert an exception about an invalid request to a result.

        Otherwise the exception would end a stream without a response, or count as a defect of the system.
        """
        if not isinstance(extensions_runner, PreparingRunner):
            return await super()._prepare_operation_async(context, extensions_runner)
        try:
            await extensions_runner.prepare()
        except InvalidDocument as error:
            errors = error.errors
        except GraphQLError as error:
            errors = [error.with_traceback(None)]  # the traceback refers to this frame: a cycle
        else:
            return None
        return PreExecutionError(data=None, errors=errors)

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log unexpected errors. Expected errors are only returned to the caller."""
        unexpected = [error for error in errors if is_unexpected(error)]
        operation = execution_context.operation_name if execution_context else None
        for error in unexpected[:_MAX_LOGGED_ERRORS]:
            log.error("unexpected error", operation=operation, path=error.path, exc_info=error.original_error)
        if len(unexpected) > _MAX_LOGGED_ERRORS:
            log.error("more unexpected errors", operation=operation, count=len(unexpected) - _MAX_LOGGED_ERRORS)


def _not_allowed(operation_type: OperationType) -> OperationRefused:
    """Return the error of an operation that its transport does not execute."""
    if operation_type is OperationType.SUBSCRIPTION:
        message = "a subscription is a stream: accept text/event-stream, or use a WebSocket"
        return OperationRefused(INVALID_GRAPHQL, message)
    return OperationRefused(METHOD_NOT_ALLOWED, "send mutations by POST")


class ClientSchema(GraphSchema):
    """Schema for clients: federation directives are left out."""

    def _collect_schema_directives(self, *types: Any) -> list[type]:
        super()._collect_schema_directives(*types)
        return []

    def _warn_for_federation_directives(self) -> None:
        pass


class FederationSchema(GraphSchema, strawberry.federation.Schema):
    """Schema for federation routers: with `_service`, the federation directives and `@cost`."""

    def __init__(self, new_runner: NewRunner = SchemaExtensionsRunner, **options: Any) -> None:
        """Create the schema, with the arguments of `GraphSchema`.

        The SDL is printed only once, because printing takes milliseconds.
        """
        super().__init__(new_runner, federation_version=_FEDERATION_VERSION, **options)
        sdl = self.as_str()
        service = self.core_schema.type_map["_Service"]
        if is_object_type(service):
            field = service.fields["sdl"]
            field.resolve = lambda *_: sdl
            field.extensions[COST_EXTENSION] = len(sdl) // SDL_BYTES_PER_UNIT  # `@cost` would change the SDL itself

    def _collect_schema_directives(self, explicit: Any, types: Any) -> list[type]:
        types = list(types)
        _add_cost_directives(types)
        return super()._collect_schema_directives(explicit, types)


def _add_cost_directives(types: Iterable[Any]) -> None:
    """Add `@cost` to the fields of objects.

    Fields that an object has from an interface are left out, because federation rejects `@cost` on interfaces.
    """
    reachable = GraphQLSchema(types=[each for each in types if each is not None]).type_map
    types = [each for name, each in reachable.items() if not name.startswith("_")]
    inherited = {
        id(strawberry_definition(field))
        for type_ in filter(is_interface_type, types)
        for field in type_.fields.values()
    }
    for type_ in filter(is_object_type, types):
        for field in type_.fields.values():
            definition = strawberry_definition(field)
            if definition is not None and id(definition) not in inherited:
                add_cost_directive(field, definition)


def _remove_null_defaults(schema: GraphQLSchema) -> None:
    """Remove defaults that are null: resolvers get None for an absent argument in any case.

    Cosmo's composition refuses a default of an argument that `@listSize` names.
    """
    for type_ in schema.type_map.values():
        inputs: Iterable[GraphQLArgument | GraphQLInputField] = ()
        if is_input_object_type(type_):
            inputs = type_.fields.values()
        elif is_object_type(type_) or is_interface_type(type_):
            inputs = (argument for field in type_.fields.values() for argument in field.args.values())
        for each in inputs:
            if each.default_value is None:
                each.default_value = Undefined


def _use_source_resolvers(schema: GraphQLSchema) -> None:
    """Replace Strawberry's resolvers of fields that need their source only. Plans call the functions without an `info`.

    Methods that return a union keep Strawberry's, which converts errors to members of the union.
    """
    for type_ in filter(is_object_type, schema.type_map.values()):
        for field in type_.fields.values():
            definition = strawberry_definition(field)
            read = source_function(definition)
            may_raise = is_union_type(get_named_type(field.type)) and definition.base_resolver is not None
            if read is not None and not may_raise:
                field.resolve = SourceResolver(read)


def _name_arguments(schema: GraphQLSchema, config: StrawberryConfig) -> None:
    """Store the names of arguments in their definitions. Strawberry would convert them again for each call."""
    for type_ in filter(is_object_type, schema.type_map.values()):
        for field in type_.fields.values():
            for argument in getattr(strawberry_definition(field), "arguments", ()):
                argument.graphql_name = config.name_converter.from_argument(argument)


def _use_plain_inputs(schema: GraphQLSchema) -> None:
    """For inputs that have only scalars and enums, replace Strawberry's conversion with `_PlainInput`."""
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
