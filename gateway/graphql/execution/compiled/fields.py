"""Execution of one field."""

from collections.abc import Callable
from types import CoroutineType
from typing import Any, TypeAlias

from graphql import GraphQLField, GraphQLObjectType, GraphQLSchema, default_field_resolver
from graphql.language import OperationDefinitionNode
from graphql.pyutils import is_awaitable

from gateway.graphql.execution.compiled.arguments import ReadArguments
from gateway.graphql.execution.compiled.awaiting import HELPERS
from gateway.graphql.execution.compiled.errors import Path, info_path
from gateway.graphql.execution.compiled.leaves import CompleteLeaf
from gateway.graphql.execution.compiled.run import Run
from gateway.graphql.execution.compiled.selections import Fragments
from gateway.graphql.execution.compiled.values import ValuePlan, is_plain

ExecuteObject: TypeAlias = Callable[[Any, Path | None, Run], Any]
"""Executes the fields of an object. Arguments: the object, its place in the response, and the execution."""


class OperationNodes:
    """Parts of the document that resolvers see in their `info`.

    Attributes:
        schema: schema that the document is valid for.
        fragments: fragments of the document by name.
        operation: the operation.
    """

    __slots__ = ("fragments", "operation", "schema")

    def __init__(self, schema: GraphQLSchema, fragments: Fragments, operation: OperationDefinitionNode) -> None:
        self.schema = schema
        self.fragments = fragments
        self.operation = operation


class FieldPlan:
    """Plan of one field of an object type.

    `read` is None for a field whose resolver does more than read the object.

    Attributes:
        key: key in the response.
        read: reads the field from the object.
        exact_class: class of the values that need no completion after `read`; None if there is no such class.
    """

    __slots__ = (
        "_complete_leaf",
        "_definition",
        "_execute",
        "_name",
        "_needs_info",
        "_nodes",
        "_parent_name",
        "_parent_type",
        "_read_arguments",
        "_value",
        "exact_class",
        "key",
        "read",
    )

    def __init__(
        self,
        key: str,
        parent_type: GraphQLObjectType,
        definition: GraphQLField,
        nodes: OperationNodes,
        value: ValuePlan,
        *,
        read: Callable[[Any], Any] | None,
        read_arguments: ReadArguments | None,
        exact_class: type | None,
        complete_leaf: CompleteLeaf | None,
        execute_object: ExecuteObject | None,
        needs_info: bool,
    ) -> None:
        """Args:
        key: key in the response.
        parent_type: type of the object.
        definition: the field in the schema.
        nodes: parts of the document for the `info`.
        value: plan of the field's values.
        read: reads the field from the object; None if the field has another resolver.
        read_arguments: reads the arguments; None for a field without arguments.
        exact_class: class of the values that need no completion after `read`.
        complete_leaf: completes a scalar or an enum; None for other types.
        execute_object: executes the fields of an object; None for a list, and for a type that has to be checked.
        needs_info: functions of the field's type read the `info`.
        """
        self.key = key
        self.read = read
        self.exact_class = exact_class
        self._parent_type = parent_type
        self._parent_name = parent_type.name
        self._definition = definition
        self._name = value.site.nodes[0].name.value
        self._nodes = nodes
        self._value = value
        self._read_arguments = read_arguments
        self._complete_leaf = complete_leaf
        self._needs_info = needs_info
        self._execute = execute_object

    @property
    def finish(self) -> Callable[[Any, Path | None, Run], Any]:
        """Function that finishes the field. Arguments: the object or the value that was read, the place of the object,
        and the execution.
        """
        if self.read is None:
            return self._resolve
        if self._definition.resolve is None:
            return self._finish_member
        if self._complete_leaf is not None:
            return self._finish_leaf
        return self._finish if self._execute is None else self._finish_object

    def fail(self, error: Exception, above: Path | None, run: Run) -> None:
        """Handle an error of `read`."""
        return self._value.fail(error, (above, self.key, self._parent_name), run.errors)

    def _resolve(self, source: Any, above: Path | None, run: Run) -> Any:
        return self._call(self._definition.resolve or default_field_resolver, source, above, run)

    def _call(self, resolve: Any, source: Any, above: Path | None, run: Run) -> Any:
        path = above, self.key, self._parent_name
        try:
            info = self._new_info(path, run)
            if self._read_arguments is None:
                value = resolve(source, info)
            else:
                value = resolve(source, info, **self._read_arguments(run.variables))
        except Exception as error:  # noqa: BLE001
            return self._value.fail(error, path, run.errors)
        return self._value.finish(value, path, run, info)

    def _finish(self, value: Any, above: Path | None, run: Run) -> Any:
        path = above, self.key, self._parent_name
        return self._value.finish(value, path, run, self._new_info(path, run) if self._needs_info else None)

    def _finish_object(self, value: Any, above: Path | None, run: Run) -> Any:
        """Finish an object as `_finish` does, without the steps that only other values need."""
        plan = self._value
        if value.__class__ is not plan.plain_class:
            return self._finish(value, above, run)
        path = above, self.key, self._parent_name
        try:
            result = self._execute(value, path, run)  # type: ignore[misc]  # it is not None here
        except Exception as error:  # noqa: BLE001
            return plan.fail(error, path, run.errors)
        return plan.await_result(result, path, run) if result.__class__ is CoroutineType else result

    def _finish_member(self, value: Any, above: Path | None, run: Run) -> Any:
        """Finish a field of graphql-core's default resolver, which calls a member that is callable."""
        if callable(value):
            return self._call(_call_member, value, above, run)
        finish = self._finish if self._complete_leaf is None else self._finish_leaf
        return finish(value, above, run)

    def _finish_leaf(self, value: Any, above: Path | None, run: Run) -> Any:
        """Complete a scalar or an enum without its place, which only its errors need."""
        if value.__class__ is not self._value.plain_class:
            if not is_plain(value):
                return self._finish(value, above, run)
            self._value.plain_class = value.__class__
        try:
            return self._complete_leaf(value)  # type: ignore[misc]  # the field is a leaf
        except Exception as error:  # noqa: BLE001
            return self.fail(error, above, run)

    def _new_info(self, path: Path, run: Run) -> Any:
        nodes = self._nodes
        return run.new_info(
            self._name,
            self._value.site.nodes,
            self._definition.type,
            self._parent_type,
            info_path(path),
            nodes.schema,
            nodes.fragments,
            run.root_value,
            nodes.operation,
            run.variables,
            run.context,
            is_awaitable,
            None,
            HELPERS,
        )


def _call_member(member: Any, info: Any) -> Any:
    """Call a member of the object, as graphql-core's default resolver does."""
    return member(info)
