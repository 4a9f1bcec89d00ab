"""Compiled operations."""

from collections.abc import Awaitable, Mapping
from types import CoroutineType
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLResolveInfo,
    GraphQLSchema,
    VariableValues,
)
from graphql.execution import Executor
from graphql.language import OperationType

from gateway.graphql.execution.compiled.compiler import Options, SchemaParts, SelectionCompiler
from gateway.graphql.execution.compiled.fields import OperationNodes
from gateway.graphql.execution.compiled.inputs import VariableReader
from gateway.graphql.execution.compiled.not_compilable import NotCompilable
from gateway.graphql.execution.compiled.objects import FieldsPlan
from gateway.graphql.execution.compiled.run import NewInfo, Run
from gateway.graphql.execution.compiled.selections import FieldCollector, condition_variables, find_operation


class OperationCompiler:
    """Compiles the operations of a schema, which must not change."""

    def __init__(self, schema: GraphQLSchema, options: Options | None = None) -> None:
        self._parts = SchemaParts(schema, options or Options())

    def compile(self, document: DocumentNode, operation_name: str | None = None) -> "CompiledOperation":
        """Return the compiled operation of a valid document, which must not change.

        Args:
            document: the document.
            operation_name: name of the operation; None: the document's only operation.

        Raises:
            NotCompilable: graphql-core must execute the operation.
        """
        return CompiledOperation(self._parts, document, operation_name)


class CompiledOperation:
    """Operation of a valid document, compiled to a plan for each set of its conditions.

    One plan is compiled for each combination of values of the variables in `@skip` and `@include`, at its first use.

    Attributes:
        fields: number of compiled fields of all plans. A field takes about 1 KB of memory.
    """

    def __init__(self, parts: SchemaParts, document: DocumentNode, operation_name: str | None = None) -> None:
        """Args:
        parts: compiled parts of the schema.
        document: valid document.
        operation_name: name of the operation; None: the document's only operation.

        Raises:
            NotCompilable: graphql-core must execute the operation.
        """
        self.fields = 0
        self._parts = parts
        operation, fragments = find_operation(document, operation_name)
        self._nodes = OperationNodes(parts.schema, fragments, operation)
        root_type = parts.schema.get_root_type(operation.operation)
        if root_type is None:
            raise NotCompilable("the schema has no type of this operation")
        self._root_type = root_type
        self._conditions = sorted(condition_variables(document))
        self._variables = VariableReader(
            parts.schema,
            parts.inputs,
            operation,
            max_errors=parts.options.max_variable_errors,
            hide_suggestions=parts.options.hide_suggestions,
        )
        self._plans: dict[tuple[bool | None, ...], FieldsPlan] = {}

    def execute(
        self,
        root_value: Any = None,
        context_value: Any = None,
        variable_values: Mapping[str, Any] | None = None,
        new_info: NewInfo = GraphQLResolveInfo,
    ) -> ExecutionResult | Awaitable[ExecutionResult]:
        """Execute a query or a mutation. The result is that of graphql-core's `execute`.

        Args:
            root_value: source of the root fields.
            context_value: context of the resolvers.
            variable_values: variables of the request.
            new_info: builds the `info` of resolvers from the members of `GraphQLResolveInfo`, in their order.

        Raises:
            NotCompilable: graphql-core must execute the operation with these variables.
        """
        variables = self._variables.read(variable_values)
        if isinstance(variables, list):
            return ExecutionResult(None, variables)
        is_mutation = self._nodes.operation.operation is OperationType.MUTATION
        return self._run(Run(variables, root_value, context_value, new_info), serially=is_mutation)

    def execute_event(
        self, executor: Executor[Any], new_info: NewInfo = GraphQLResolveInfo
    ) -> ExecutionResult | Awaitable[ExecutionResult]:
        """Execute the operation, a subscription, for one event of its source.

        It is a `root_selection_set_executor` of graphql-core's `map_source_to_response_event`.

        Args:
            executor: graphql-core's executor of the event.
            new_info: as for `execute`.

        Raises:
            NotCompilable: graphql-core must execute the operation with these variables.
        """
        run = Run(executor.variable_values, executor.root_value, executor.context_value, new_info)
        return self._run(run, serially=False)

    def _run(self, run: Run, *, serially: bool) -> ExecutionResult | Awaitable[ExecutionResult]:
        coerced = run.variables.coerced
        key = tuple(_condition(coerced.get(name)) for name in self._conditions)
        plan = self._plans.get(key) or self._compile(key, run.variables, serially=serially)
        try:
            data = plan.execute(run.root_value, None, run)
        except GraphQLError as error:
            run.errors.add(error, None)
            data = None
        return _await_result(data, run) if data.__class__ is CoroutineType else _result(data, run)

    def _compile(self, key: tuple[bool | None, ...], variables: VariableValues, *, serially: bool) -> FieldsPlan:
        nodes, parts = self._nodes, self._parts
        collector = FieldCollector(parts.schema, nodes.fragments, variables)
        compiler = SelectionCompiler(parts, nodes, collector, parts.options.max_fields - self.fields)
        try:
            plan = compiler.compile(self._root_type, serially=serially)
        except GraphQLError as error:
            raise NotCompilable("a condition is not valid") from error
        except RecursionError:
            raise NotCompilable("the selections are nested too deeply") from None
        self._plans[key] = plan
        self.fields += compiler.fields
        return plan


def _condition(value: Any) -> bool | None:
    """Return the value of a condition; None if it is not valid. A plan for such a value is never compiled."""
    return value if value is True or value is False else None


async def _await_result(data: Awaitable[Any], run: Run) -> ExecutionResult:
    try:
        result = await data
    except GraphQLError as error:
        run.errors.add(error, None)
        result = None
    return _result(result, run)


def _result(data: Any, run: Run) -> ExecutionResult:
    """Return the result."""
    return ExecutionResult(data, run.errors.take() or None)
