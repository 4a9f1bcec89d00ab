"""Readers of variables: they coerce the values of a request, as graphql-core's `get_variable_values` does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from graphql import (
    GraphQLArgument,
    GraphQLError,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLLeafType,
    GraphQLSchema,
    Undefined,
    ValueNode,
    VariableValues,
    coerce_input_literal,
    coerce_input_value,
    get_variable_values,
    is_input_object_type,
    is_list_type,
    is_non_null_type,
    is_required_input_field,
    type_from_ast,
)
from graphql.language import OperationDefinitionNode
from graphql.pyutils import is_iterable

from gateway.graphql.execution.compiled.leaves import exact_class

Read: TypeAlias = Callable[[Any], Any]
"""Returns the coerced value, or Undefined if the value is not valid."""

_MAX_DEPTH = 20
"""Levels of an input type that is compiled. graphql-core limits the levels of values of recursive types."""


class VariableReader:
    """Reads the variables of an operation.

    The first valid variables are read by graphql-core: its result has the signature of each variable, which resolvers
    see in `info.variable_values`. It also reads all variables that are not valid, and so reports their errors.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        inputs: "InputCompiler",
        operation: OperationDefinitionNode,
        *,
        max_errors: int,
        hide_suggestions: bool,
    ) -> None:
        """Args:
        schema: schema that the operation is valid for.
        inputs: compiles the types of the variables.
        operation: the operation.
        max_errors: number of errors after which graphql-core stops.
        hide_suggestions: messages suggest no names of the schema.
        """
        self._schema = schema
        self._definitions = tuple(operation.variable_definitions or ())
        self._max_errors = max_errors
        self._hide_suggestions = hide_suggestions
        self._sources: Mapping[str, Any] | None = None
        variables = [_compile_variable(schema, inputs, each) for each in self._definitions]
        self._variables = None if None in variables else [each for each in variables if each is not None]

    def read(self, values: Mapping[str, Any] | None) -> VariableValues | list[GraphQLError]:
        """Return the coerced variables, or the errors of those that are not valid.

        Args:
            values: variables of the request.
        """
        values = values or {}
        if self._variables is not None and self._sources is not None:
            coerced = self._coerce(values)
            if coerced is not None:
                sources = {
                    name: source._replace(value=values[name]) if name in values else source
                    for name, source in self._sources.items()
                }
                return VariableValues(sources, coerced)
        result = get_variable_values(
            self._schema,
            self._definitions,
            dict(values),
            max_errors=self._max_errors,
            hide_suggestions=self._hide_suggestions,
        )
        if isinstance(result, VariableValues):
            self._sources = {name: each._replace(value=Undefined) for name, each in result.sources.items()}
        return result

    def _coerce(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        coerced = {}
        for name, read, default, type_, is_required in self._variables or ():
            value = values.get(name, Undefined)
            if value is not Undefined:
                value = read(value)
            elif default is not None:
                value = coerce_input_literal(default, type_)
            elif not is_required:
                continue
            if value is Undefined:
                return None
            coerced[name] = value
        return coerced


def _compile_variable(
    schema: GraphQLSchema, inputs: "InputCompiler", definition: Any
) -> tuple[str, Read, ValueNode | None, GraphQLInputType, bool] | None:
    """Return the name, the reader, the default and the type of a variable, and whether it needs a value."""
    type_: Any = type_from_ast(schema, definition.type)
    read = inputs.compile(type_)
    if read is None:
        return None
    return definition.variable.name.value, read, definition.default_value, type_, is_non_null_type(type_)


def default_of(definition: GraphQLArgument | GraphQLInputField) -> Any:
    """Return the coerced default of an argument or input field; Undefined if it has none.

    Raises:
        ValueError: the default is not valid.
    """
    default = definition.default
    if default is None:
        return definition.default_value
    if default.literal is not None:
        value = coerce_input_literal(default.literal, definition.type)
    else:
        value = coerce_input_value(default.value, definition.type)
    if value is Undefined:
        raise ValueError("the default is not valid")
    return value


class InputCompiler:
    """Compiles readers of input types. Those of named types are shared by all operations."""

    def __init__(self) -> None:
        self._readers: dict[str, Read | None] = {}

    def compile(self, type_: GraphQLInputType, depth: int = 0) -> Read | None:
        """Return the reader of values of a type; None if graphql-core must read them.

        Args:
            type_: type of the values.
            depth: level of the type in another one.
        """
        if is_non_null_type(type_):
            read = self.compile(type_.of_type, depth)
            return None if read is None else _non_null_reader(read)
        if is_list_type(type_):
            read = self.compile(type_.of_type, depth)
            return None if read is None else _list_reader(read)
        named: Any = type_
        if named.name not in self._readers and depth < _MAX_DEPTH:
            is_object = is_input_object_type(named)
            self._readers[named.name] = self._compile_object(named, depth + 1) if is_object else _leaf_reader(named)
        return self._readers.get(named.name)

    def _compile_object(self, type_: GraphQLInputObjectType, depth: int) -> Read | None:
        if type_.is_one_of:
            return None
        fields = []
        for name, field in type_.fields.items():
            read = self.compile(field.type, depth)
            if read is None:
                return None
            try:
                default = default_of(field)
            except ValueError:
                return None
            fields.append((name, field.out_name or name, read, default, is_required_input_field(field)))
        return _object_reader(fields, type_.out_type)


def _non_null_reader(read: Read) -> Read:
    def read_non_null(value: Any) -> Any:
        return Undefined if value is None else read(value)

    return read_non_null


def _list_reader(read: Read) -> Read:
    def read_list(value: Any) -> Any:
        if value is None:
            return None
        items = [read(item) for item in (value if is_iterable(value) else [value])]
        return Undefined if any(item is Undefined for item in items) else items

    return read_list


def _leaf_reader(type_: GraphQLLeafType) -> Read:
    coerce = type_.coerce_input_value
    exact = exact_class(type_)

    def read_leaf(value: Any) -> Any:
        if value is None or value.__class__ is exact:
            return value
        try:
            return coerce(value)
        except Exception:  # noqa: BLE001  graphql-core reads the variables again and reports the error
            return Undefined

    return read_leaf


def _object_reader(
    fields: Sequence[tuple[str, str, Read, Any, bool]], convert: Callable[[dict[str, Any]], Any]
) -> Read:
    """Return a reader of objects.

    Args:
        fields: for each field: its name, its name in Python, its reader, its default, and whether it needs a value.
        convert: converts the object to its Python type.
    """
    names = frozenset(name for name, *_ in fields)

    def read_object(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, dict) or not names.issuperset(value):
            return Undefined
        coerced = {}
        for name, out_name, read, default, is_required in fields:
            given = value.get(name, Undefined)
            if given is not Undefined:
                given = read(given)
                if given is Undefined:
                    return Undefined
                coerced[out_name] = given
            elif is_required:
                return Undefined
            elif default is not Undefined:
                coerced[out_name] = default
        return convert(coerced)

    return read_object
