"""Validation of documents and variables, with error messages that do not quote the request.

graphql-core's messages quote names and values of the request. These may contain card data, and one message may be as
long as the request. So this module replaces the messages of all rules. The new messages consist of the kind of the
error and of names from the schema. Validation stops after a few errors.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeAlias

from graphql import (
    ASTValidationRule,
    DirectiveNode,
    DocumentNode,
    GraphQLError,
    GraphQLField,
    GraphQLInputType,
    GraphQLSchema,
    InlineFragmentNode,
    NameNode,
    NoSchemaIntrospectionCustomRule,
    ObjectFieldNode,
    ObjectValueNode,
    ValidationContext,
    get_named_type,
    get_nullable_type,
    is_enum_type,
    is_input_object_type,
    is_input_type,
    is_leaf_type,
    is_list_type,
    is_required_argument,
    is_required_input_field,
    specified_rules,
    type_from_ast,
)
from graphql.language import FragmentSpreadNode, OperationDefinitionNode
from graphql.utilities import validate_input_value

from gateway.errors import INVALID_GRAPHQL, OperationRefused
from gateway.graphql.execution.graphql_core_internals import LiteralRule, RuleSet
from gateway.graphql.execution.strawberry_internals import STRAWBERRY_RULES

MAX_ERRORS: Final = 5
"""Maximum number of errors of one document or one set of variables.

graphql-core takes up to 5 ms to build the message of one error.
"""

_MAX_SUGGESTED_LENGTH: Final = 40
_MAX_SUGGESTIONS: Final = 3
_MIN_SIMILARITY: Final = 0.5

_EXAMPLES: Final = {"DateTime": ', such as "2026-11-21T12:00:00Z"', "Boolean": ", true or false"}
"""Hints for messages, by scalar: an example or the valid values."""

_Describe: TypeAlias = Callable[[ValidationContext, GraphQLError], str]
"""Returns the message for an error that a validation rule reports."""


class Validator:
    """Validates documents, and describes invalid variables."""

    def __init__(self, *, introspection: bool, suggestions: bool) -> None:
        """Args:
        introspection: allow introspection queries.
        suggestions: messages may suggest names of the schema ("did you mean ...").
        """
        self._suggest = _suggest if suggestions else _suggest_nothing
        rules = (*specified_rules, *STRAWBERRY_RULES, *(() if introspection else (NoSchemaIntrospectionCustomRule,)))
        self._rules = RuleSet([self._described(rule) for rule in rules])

    def validate(self, schema: GraphQLSchema, document: DocumentNode) -> list[GraphQLError]:
        """Return the first errors of a document, or an empty list if it is valid."""
        errors = self._rules.validate(schema, document, MAX_ERRORS)
        return [each if isinstance(each, OperationRefused) else _undescribed(each) for each in errors]

    def check_variables(
        self, schema: GraphQLSchema, operation: OperationDefinitionNode, variables: Mapping[str, Any] | None
    ) -> list[GraphQLError]:
        """Return the first errors of the variables of an operation.

        Args:
            schema: schema that the operation is valid for.
            operation: the operation.
            variables: variables of the request, which graphql-core has rejected.
        """
        errors: list[GraphQLError] = []
        for definition in operation.variable_definitions or ():
            type_ = type_from_ast(schema, definition.type)
            name = definition.variable.name.value
            if is_input_type(type_) and (name in (variables or {}) or definition.default_value is None):
                messages = self._variable_messages(type_, (variables or {}).get(name))
                errors += [_invalid(each, [definition]) for each in messages]
        return errors[:MAX_ERRORS] or [
            _invalid("the variables are not valid: compare them with the operation's definitions")
        ]

    def _variable_messages(self, type_: GraphQLInputType, value: Any) -> Iterable[str]:
        messages: dict[str, None] = {}
        reports = itertools.count(1)

        def report(_: GraphQLError, path: list[str | int]) -> None:
            place = f" at `{_path(path)}`" if path else ""
            problem = self._value_problem(_type_at(type_, path), _value_at(value, path))
            messages[f"a variable of type `{type_}` has an invalid value{place}: {problem}"] = None
            if next(reports) == MAX_ERRORS:  # counts reports, because thousands of them may have the same message
                raise _EnoughError

        try:
            validate_input_value(value, type_, report, hide_suggestions=True)
        except _EnoughError:
            pass
        except RecursionError:
            messages[f"a variable of type `{type_}` is nested too deeply"] = None
        return messages

    def _value_problem(self, type_: GraphQLInputType, value: Any) -> str:
        """Describe the error of one value. Nested values are not checked."""
        nullable = get_nullable_type(type_)
        if isinstance(value, dict) and is_input_object_type(nullable):
            return self._object_problem(nullable, value)
        return self._expected(type_)

    def _expected(self, type_: GraphQLInputType) -> str:
        """Return the expected type, with an example or the values of an enum."""
        named = get_named_type(type_)
        hint = _EXAMPLES.get(named.name, "")
        if is_enum_type(named) and self._suggest is not _suggest_nothing:
            hint = f", one of {', '.join(named.values)}"
        return f"expected `{type_}`{hint}"

    def _object_problem(self, type_: Any, names: Iterable[str]) -> str:
        """Describe the missing and the unknown fields of an input object."""
        present = set(names)
        problems = []
        missing = [name for name, each in type_.fields.items() if is_required_input_field(each) and name not in present]
        if missing:
            problems.append(f"`{type_}` requires {_quote(missing)}")
        if unknown := sorted(present - type_.fields.keys(), key=len)[:_MAX_SUGGESTIONS]:
            hints = dict.fromkeys(self._suggest(name, type_.fields) for name in unknown)
            problems.append(f"`{type_}` has no such field{''.join(hints)}")
        return ", and ".join(problems) or self._expected(type_)

    def _described(self, rule: type[ASTValidationRule]) -> type[ASTValidationRule]:
        """Return a subclass of the rule that replaces the messages of its errors.

        Raises:
            KeyError: the rule has neither a description nor a message.
        """
        if rule.__name__ == "ValuesOfCorrectTypeRule":
            return self._literal_rule()
        describe = self._descriptions().get(rule.__name__) or _fixed(MESSAGES[rule.__name__])

        class DescribedRule(rule):  # type: ignore[misc, valid-type]
            def report_error(self, error: GraphQLError) -> None:
                super().report_error(_invalid(describe(self.context, error), error.nodes))

            if rule.__name__ == "KnownArgumentNamesRule":

                def enter_argument(self, node: Any, *_: Any) -> None:  # graphql-core's does not call `report_error`
                    if self.context.get_field_def() and not self.context.get_argument():
                        self.report_error(GraphQLError("", node))

        return DescribedRule

    def _literal_rule(self) -> type[ASTValidationRule]:
        describe = self._describe_literal

        class DescribedLiteralRule(LiteralRule):
            def report_literal(self, error: GraphQLError, input_type: GraphQLInputType, path: list[str | int]) -> None:
                self.report_error(_invalid(describe(self.context, error, input_type, path), error.nodes))

        return DescribedLiteralRule

    def _descriptions(self) -> dict[str, _Describe]:
        return {
            "FieldsOnCorrectTypeRule": self._describe_field,
            "KnownArgumentNamesRule": self._describe_argument,
            "KnownDirectivesRule": self._describe_directive,
            "KnownTypeNamesRule": self._describe_type,
            "ProvidedRequiredArgumentsRule": _describe_missing_arguments,
            "ScalarLeafsRule": _describe_leaf,
            "VariablesInAllowedPositionRule": _describe_variable_position,
        }

    def _describe_field(self, context: ValidationContext, error: GraphQLError) -> str:
        parent = context.get_parent_type()
        fields = getattr(parent, "fields", {})
        return f"`{parent}` has no such field{self._suggest(_name(error), fields)}"

    def _describe_argument(self, context: ValidationContext, error: GraphQLError) -> str:
        directive = context.get_directive()
        field = context.get_field_def()
        if directive is not None:
            return f"`@{directive.name}` has no such argument{self._suggest(_name(error), directive.args)}"
        arguments = field.args if field else {}
        return f"`{_field_coordinate(context)}` has no such argument{self._suggest(_name(error), arguments)}"

    def _describe_directive(self, context: ValidationContext, error: GraphQLError) -> str:
        names = [each.name for each in context.schema.directives]
        if _name(error) in names:
            return f"`@{_name(error)}` cannot be used here"
        return f"there is no such directive{self._suggest(_name(error), names)}"

    def _describe_type(self, context: ValidationContext, error: GraphQLError) -> str:
        return f"there is no such type{self._suggest(_name(error), context.schema.type_map)}"

    def _describe_literal(
        self, context: ValidationContext, error: GraphQLError, input_type: GraphQLInputType, path: Sequence[str | int]
    ) -> str:
        type_ = _type_at(input_type, path)
        node = _first_node(error)
        if isinstance(node, ObjectFieldNode) and is_input_object_type(get_nullable_type(type_)):
            problem = f"`{get_nullable_type(type_)}` has no such field" + self._suggest(
                node.name.value, get_nullable_type(type_).fields
            )
        elif isinstance(node, ObjectValueNode) and is_input_object_type(get_nullable_type(type_)):
            problem = self._object_problem(get_nullable_type(type_), [each.name.value for each in node.fields])
        else:
            problem = self._expected(type_)
        place = f" at `{_path(path)}`" if path else ""
        return f"{_argument_place(context)} has an invalid value{place}: {problem}"


class _EnoughError(Exception):
    pass


MESSAGES: Final[dict[str, str]] = {
    "DeferStreamDirectiveLabel": "the labels of @defer and @stream must be different texts",
    "DeferStreamDirectiveOnRootField": "@defer and @stream cannot be used here",
    "DeferStreamDirectiveOnValidOperationsRule": "@defer and @stream cannot be used in a subscription",
    "ExecutableDefinitionsRule": "a document may have operations and fragments only: remove the other definitions",
    "FragmentsOnCompositeTypesRule": "a fragment must be on an object, an interface or a union",
    "KnownFragmentNamesRule": "the document has no such fragment: define it, or correct the name",
    "KnownOperationTypesRule": "the schema has no such type of operation: use a query, a mutation or a subscription",
    "LoneAnonymousOperationRule": "an operation without a name must be the only one in the document",
    "MaxIntrospectionDepthRule": "the introspection is nested too deeply: request fewer levels",
    "MaybeNullValidationRule": "this place must be left out or have a value; it cannot be null",
    "NoFragmentCyclesRule": "a fragment cannot spread itself, directly or through others",
    "NoSchemaIntrospectionCustomRule": "introspection is off here: read the published schema instead",
    "NoUndefinedVariablesRule": "the operation does not define this variable: define it, or correct the name",
    "NoUnusedFragmentsRule": "no operation uses this fragment: spread or remove it",
    "NoUnusedVariablesRule": "the operation does not use this variable: remove it",
    "OneOfInputValidationRule": "exactly one of the fields must have a value",
    "OverlappingFieldsCanBeMergedRule": "fields with the same name in the response differ: give one of them an alias",
    "PossibleFragmentSpreadsRule": "a fragment is spread where its type never occurs: remove it, or correct its type",
    "SingleFieldSubscriptionsRule": "a subscription must have exactly one field of the schema at its root",
    "StreamDirectiveOnListField": "@stream can be used on lists only",
    "UniqueArgumentNamesRule": "an argument is given twice: remove one",
    "UniqueDirectivesPerLocationRule": "a directive is given twice at one place: remove one",
    "UniqueFragmentNamesRule": "two fragments have the same name: rename one",
    "UniqueInputFieldNamesRule": "a field of an input is given twice: remove one",
    "UniqueOperationNamesRule": "two operations have the same name: rename one",
    "UniqueVariableNamesRule": "two variables have the same name: rename one",
    "VariablesAreInputTypesRule": "a variable must have an input type: a scalar, an enum or an input object",
}
"""Messages by rule, for the rules whose messages contain no names from the schema."""


def _fixed(message: str) -> _Describe:
    return lambda _, __: message


def _invalid(message: str, nodes: Iterable[Any] | None = None) -> OperationRefused:
    return OperationRefused(INVALID_GRAPHQL, message, list(nodes or ()))


def _undescribed(error: GraphQLError) -> OperationRefused:
    """Replace an error that a rule reports without `report_error`, or the last error of a stopped validation."""
    nodes = error.nodes or []
    if not nodes:
        return _invalid("validation has stopped here: correct the other errors first, or nest fewer fragments")
    rule = "PossibleFragmentSpreadsRule" if isinstance(nodes[0], FragmentSpreadNode | InlineFragmentNode) else ""
    return _invalid(MESSAGES.get(rule, "the document is not valid here: compare it with the schema"), nodes)


def _describe_missing_arguments(context: ValidationContext, error: GraphQLError) -> str:
    node = _first_node(error)
    present = {each.name.value for each in getattr(node, "arguments", None) or ()}
    directive = context.schema.get_directive(_name(error)) if isinstance(node, DirectiveNode) else None
    field: Any = directive or context.get_field_def()
    arguments = field.args if field else {}
    missing = [name for name, each in arguments.items() if is_required_argument(each) and name not in present]
    place = f"@{directive.name}" if directive else _field_coordinate(context)
    return f"`{place}` requires {_quote(missing)}"


def _describe_leaf(context: ValidationContext, error: GraphQLError) -> str:  # noqa: ARG001  signature of `_Describe`
    type_ = context.get_type()
    if is_leaf_type(get_named_type(type_)):
        return f"`{_field_coordinate(context)}` is of type `{type_}`: it has no sub-fields"
    return f"`{_field_coordinate(context)}` is of type `{type_}`: select fields of it"


def _describe_variable_position(context: ValidationContext, error: GraphQLError) -> str:
    type_ = type_from_ast(context.schema, _first_node(error).type)  # the definition of the variable
    return f"a variable of type `{type_}` is used where its type is not allowed"


def _field_coordinate(context: ValidationContext) -> str:
    """Return the schema coordinate of the field that is visited."""
    parent, field = context.get_parent_type(), context.get_field_def()
    fields: Mapping[str, GraphQLField] = getattr(parent, "fields", {})
    name = next((name for name, each in fields.items() if each is field), None)
    return f"{parent}.{name}" if name else str(parent)


def _argument_place(context: ValidationContext) -> str:
    """Return the coordinate of the visited argument, or `the default of a variable` outside arguments."""
    argument, directive, field = context.get_argument(), context.get_directive(), context.get_field_def()
    if argument is None:
        return "the default of a variable"
    arguments: Mapping[str, Any] = directive.args if directive else field.args if field else {}
    name = next((name for name, each in arguments.items() if each is argument), "")
    return f"`{f'@{directive.name}' if directive else _field_coordinate(context)}({name}:)`"


def _name(error: GraphQLError) -> str:
    """Return the name in the node of an error, or an empty text. It is compared with the schema and never shown."""
    name = getattr(_first_node(error), "name", None)
    return name.value if isinstance(name, NameNode) else ""


def _first_node(error: GraphQLError) -> Any:
    return error.nodes[0] if error.nodes else None


def _suggest(name: str, options: Iterable[str]) -> str:
    if len(name) > _MAX_SUGGESTED_LENGTH:
        return ""
    close = get_close_matches(
        name, [each for each in options if not each.startswith("__")], _MAX_SUGGESTIONS, _MIN_SIMILARITY
    )
    return f"; did you mean {_quote(close)}?" if close else ""


def _suggest_nothing(_: str, __: Iterable[str]) -> str:
    return ""


def _quote(names: Sequence[str]) -> str:
    return ", ".join(f"`{each}`" for each in names)


def _path(path: Sequence[str | int]) -> str:
    """Format a path of input fields and list indexes, such as `card.types[0]`."""
    return "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in path).removeprefix(".")


def _type_at(type_: Any, path: Sequence[str | int]) -> Any:
    """Return the type at a path within an input type."""
    for each in path:
        nullable = get_nullable_type(type_)
        if isinstance(each, int):
            type_ = nullable.of_type if is_list_type(nullable) else type_
        else:
            while is_list_type(nullable):  # a single value may stand for a list of one item
                nullable = get_nullable_type(nullable.of_type)
            type_ = nullable.fields[each].type if is_input_object_type(nullable) else type_
    return type_


def _value_at(value: Any, path: Sequence[str | int]) -> Any:
    """Return the part of a JSON value at a path; None if a single value stands for a list of one item."""
    for each in path:
        if isinstance(value, list) and isinstance(each, int):
            value = value[each]
        else:
            value = value.get(each) if isinstance(value, dict) else None
    return value
