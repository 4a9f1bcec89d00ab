"""Readers of the arguments of a field."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from graphql import (
    FieldNode,
    GraphQLArgument,
    GraphQLField,
    ListValueNode,
    ObjectValueNode,
    Undefined,
    ValueNode,
    VariableNode,
    VariableValues,
    coerce_input_literal,
    get_argument_values,
    is_non_null_type,
    is_required_argument,
)

from gateway.graphql.execution.compiled.inputs import default_of

ReadArguments: TypeAlias = Callable[[VariableValues], dict[str, Any]]
"""Returns the arguments of a resolver. It raises a GraphQLError if they are not valid."""

_ReadArgument: TypeAlias = Callable[[VariableValues], Any]
"""Returns the value of one argument; `_OMITTED` if the resolver does not get it, Undefined if it is not valid."""

_OMITTED: Final = object()
_IMMUTABLE: Final = (str, int, float, bool, type(None))


def compile_arguments(definition: GraphQLField, node: FieldNode, *, hide_suggestions: bool) -> ReadArguments | None:
    """Return the reader of the arguments of a field; None if the field has none.

    Args:
        definition: the field in the schema.
        node: the first node of the field in the document.
        hide_suggestions: messages suggest no names of the schema.
    """
    if not definition.args and not node.arguments:
        return None

    def read_all(variables: VariableValues) -> dict[str, Any]:
        return get_argument_values(definition, node, variables, hide_suggestions=hide_suggestions)

    nodes = {each.name.value: each.value for each in node.arguments or ()}
    readers: list[tuple[str, _ReadArgument]] = []
    for name, argument in definition.args.items():
        read = _compile_argument(argument, nodes.get(name))
        if read is None:
            return read_all
        readers.append((argument.out_name or name, read))

    def read_arguments(variables: VariableValues) -> dict[str, Any]:
        arguments = {}
        for name, read in readers:
            value = read(variables)
            if value is Undefined:
                return read_all(variables)  # graphql-core raises the error
            if value is not _OMITTED:
                arguments[name] = value
        return arguments

    return read_arguments


def _compile_argument(argument: GraphQLArgument, node: ValueNode | None) -> _ReadArgument | None:
    """Return the reader of an argument; None if graphql-core must read it."""
    try:
        default = default_of(argument)
    except ValueError:
        return None
    absent = _OMITTED if default is Undefined else default
    if node is None:
        return None if is_required_argument(argument) else _constant(absent)
    if isinstance(node, VariableNode):
        if is_required_argument(argument):
            absent = Undefined
        return _variable(node.name.value, absent, null=Undefined if is_non_null_type(argument.type) else None)
    if not _has_variables(node):
        value = coerce_input_literal(node, argument.type)
        if value is Undefined:
            return None
        if isinstance(value, _IMMUTABLE):
            return _constant(value)
    return _literal(node, argument.type)


def _constant(value: Any) -> _ReadArgument:
    def read(_: VariableValues) -> Any:
        return value

    return read


def _variable(name: str, absent: Any, null: Any) -> _ReadArgument:
    def read(variables: VariableValues) -> Any:
        coerced: Mapping[str, Any] = variables.coerced
        value = coerced.get(name, absent)
        return null if value is None and name in coerced else value

    return read


def _literal(node: ValueNode, type_: Any) -> _ReadArgument:
    """Read a literal for each call, because resolvers may change lists and objects."""

    def read(variables: VariableValues) -> Any:
        return coerce_input_literal(node, type_, variables)

    return read


def _has_variables(node: ValueNode) -> bool:
    if isinstance(node, ListValueNode):
        return any(_has_variables(each) for each in node.values)
    if isinstance(node, ObjectValueNode):
        return any(_has_variables(each.value) for each in node.fields)
    return isinstance(node, VariableNode)
