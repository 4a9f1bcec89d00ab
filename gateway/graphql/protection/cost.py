"""What an operation costs, by `@cost` and `@listSize` on the graph's fields.

The directives are IBM's GraphQL Cost Directives (https://ibm.github.io/graphql-specs/cost-spec.html), summed as Apollo
Router sums them: an object costs 1 and a leaf nothing, or what its field's `@cost` says; a list as much as its items; a
mutation 10 from the outset. A list has as many items as its slicing arguments say, or else its assumed size, or else
`_LIST_SIZE`; `sizedFields` hand that on to lists one level below, such as a connection's `edges`. Arguments cost
nothing here.

What is selected in several places counts in each. So nothing costs more than was estimated, as long as no list is
longer than was assumed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from graphql import (
    BooleanValueNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    SelectionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)
from graphql.language import OperationDefinitionNode, OperationType
from strawberry.federation.schema_directives import Cost as CostDirective
from strawberry.federation.schema_directives import ListSize
from strawberry.schema.schema_converter import GraphQLCoreConverter

from gateway.graphql.federation.entities import ENTITIES

# Not in the graph itself: Apollo's composition takes no slicing argument that is a list.
_ENTITIES: Final = ListSize(
    assumed_size=None,
    slicing_arguments=["representations"],
    sized_fields=None,
    require_one_slicing_argument=False,
)
_MUTATION: Final = 10
_LIST_SIZE: Final = 10
_MOST: Final = 2**31 - 1  # a number that every client can read
_DIGITS: Final = 10  # as many as that has: Python refuses to read some thousands of them

Variables = Mapping[str, Any]


@dataclass(slots=True)
class Spent:
    """What the operations of one request cost."""

    estimated: int = 0
    actual: int = 0


class Cost:
    """Of one operation of a valid document. It is worked out once; only what depends on variables is each time.

    Attributes:
        kind: the operation's type.
        name: its name, if it has one.
    """

    def __init__(self, schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> None:
        self.kind = operation.operation
        self.name = operation.name.value if operation.name else None
        self._base = _MUTATION if operation.operation is OperationType.MUTATION else 0
        self._defaults = {
            each.variable.name.value: _literal(each.default_value)
            for each in operation.variable_definitions or ()
            if each.default_value
        }
        root = schema.get_root_type(operation.operation)
        self._fields = tuple(_Plan(schema, document).fields(root, operation.selection_set, {}))
        fixed = _fixed(self._fields)
        self._fixed = None if fixed is None else min(_MOST, self._base + fixed)

    def estimated(self, variables: Variables | None) -> int:
        """Before it is executed with these variables, which need not be valid."""
        if self._fixed is None:
            given = self._defaults | dict(variables or {})
            return min(_MOST, self._base + sum(each.estimated(given) for each in self._fields))
        return self._fixed

    def actual(self, data: Mapping[str, Any] | None) -> int:
        """Of what came of it: what is null costs nothing."""
        return self._base + _actual(self._fields, data) if data else 0


@dataclass(frozen=True, slots=True)
class _Size:
    """How many items a list will have."""

    assumed: int
    arguments: Sequence[Any] = ()  # what is given to slice by

    @property
    def is_fixed(self) -> bool:
        return not any(isinstance(each, VariableNode) for each in self.arguments)

    def of(self, variables: Variables) -> int:
        given = [variables.get(each.name.value) if isinstance(each, VariableNode) else each for each in self.arguments]
        sizes = [
            len(each) if isinstance(each, list) else each for each in given if isinstance(each, list | int | float)
        ]
        return max(0, int(min(max(sizes), _MOST))) if sizes else self.assumed


@dataclass(frozen=True, slots=True)
class _Field:
    """A field where it is selected, if it or anything below it costs something.

    Attributes:
        key: its name in the response.
        weight: what one of it costs by itself.
        size: how many there are; None for what is no list.
        conditions: `@skip` and `@include` by variables, each with what keeps the field: the value of its variable.
        fields: those below it.
        is_certain: it is there once wherever the object around it is, and all of them cost alike.
        each: what one that is there has cost with all below it, where all cost alike.
        fixed: the estimate, where variables do not matter.
    """

    key: str
    weight: int
    size: _Size | None
    conditions: Sequence[tuple[str, bool]]
    fields: Sequence["_Field"]
    is_certain: bool
    each: int | None
    fixed: int | None = field(init=False)

    def __post_init__(self) -> None:
        below = _fixed(self.fields)
        is_fixed = below is not None and not self.conditions and (self.size is None or self.size.is_fixed)
        object.__setattr__(self, "fixed", self._sum({}) if is_fixed else None)

    def estimated(self, variables: Variables) -> int:
        if self.fixed is not None:
            return self.fixed
        if any(variables.get(name) is not kept for name, kept in self.conditions):
            return 0
        return self._sum(variables)

    def _sum(self, variables: Variables) -> int:
        count = 1 if self.size is None else self.size.of(variables)
        return count * (self.weight + sum(each.estimated(variables) for each in self.fields))


def _fixed(fields: Sequence[_Field]) -> int | None:
    """The sum of the estimates, if variables matter for none."""
    sums = [each.fixed for each in fields]
    return None if None in sums else sum(each for each in sums if each is not None)


def _actual(fields: Sequence[_Field], data: Mapping[str, Any]) -> int:
    total = 0
    for each in fields:
        value = data.get(each.key)
        if value is None:
            continue
        if each.each is not None:
            total += each.each if each.size is None else each.each * len(value)
        elif each.size is None:
            total += each.weight + _actual(each.fields, value)
        else:
            there = [item for item in value if item is not None]
            total += each.weight * len(there) + sum(_actual(each.fields, item) for item in there)
    return total


class _Plan:
    """Makes the fields of an operation, fragments spread."""

    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._schema = schema
        self._fragments = {
            each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)
        }

    def fields(
        self,
        parent: Any,
        selections: SelectionSetNode | None,
        sized: Mapping[str, _Size],
        conditions: Sequence[tuple[str, bool]] = (),
    ) -> Iterator[_Field]:
        """Of a selection set.

        Args:
            parent: the type that it is on.
            selections: it.
            sized: sizes that the field above gives to lists here, by name.
            conditions: of the fragments around it.
        """
        for node in selections.selections if selections else ():
            its_own = _conditions(node)
            if its_own is None:
                continue
            both = (*conditions, *its_own)
            if isinstance(node, FieldNode):
                if not node.name.value.startswith("__"):
                    yield from self._field(parent.fields[node.name.value], node, sized, both)
                continue
            fragment = self._fragments[node.name.value] if isinstance(node, FragmentSpreadNode) else node
            if isinstance(fragment, FragmentDefinitionNode | InlineFragmentNode):
                on = fragment.type_condition and self._schema.type_map[fragment.type_condition.name.value]
                yield from self.fields(on or parent, fragment.selection_set, sized, both)

    def _field(
        self,
        definition: GraphQLField,
        node: FieldNode,
        sized: Mapping[str, _Size],
        conditions: Sequence[tuple[str, bool]],
    ) -> Iterator[_Field]:
        kind = get_named_type(definition.type)
        directives = _directives(definition) | ({ListSize: _ENTITIES} if node.name.value == ENTITIES else {})
        weight = directives[CostDirective].weight if CostDirective in directives else int(is_composite_type(kind))
        size = _Size(_LIST_SIZE)
        handed_on: Mapping[str, _Size] = {}
        if ListSize in directives:
            size = _size(directives[ListSize], definition, node)
            handed_on = dict.fromkeys(directives[ListSize].sized_fields or (), size)
        fields = tuple(self.fields(kind, node.selection_set, handed_on))
        if not weight and not fields:
            return
        nullable = get_nullable_type(definition.type)
        is_alike = not fields or (is_object_type(kind) and all(each.is_certain for each in fields))
        if is_list_type(nullable):
            is_alike = is_alike and is_non_null_type(nullable.of_type)
        yield _Field(
            key=(node.alias or node.name).value,
            weight=weight,
            size=sized.get(node.name.value, size) if is_list_type(nullable) else None,
            conditions=conditions,
            fields=fields,
            is_certain=is_alike and not conditions and is_non_null_type(definition.type) and nullable is kind,
            each=weight + sum(each.each or 0 for each in fields) if is_alike else None,
        )


def _directives(definition: GraphQLField) -> dict[type, Any]:
    ours = definition.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    return {type(each): each for each in getattr(ours, "directives", ())}


def _size(directive: ListSize, definition: GraphQLField, node: FieldNode) -> _Size:
    names = directive.slicing_arguments or ()  # none, or not set
    arguments = {name: definition.args[name].default_value for name in names}
    arguments |= {each.name.value: _literal(each.value) for each in node.arguments or () if each.name.value in names}
    assumed = _LIST_SIZE if directive.assumed_size is None else directive.assumed_size
    return _Size(assumed, tuple(arguments.values()))


def _literal(value: ValueNode) -> Any:
    """As much of a value as sizes and conditions take: a number, a truth value, a list of so many; or a variable."""
    match value:
        case VariableNode():
            return value
        case IntValueNode():
            return int(value.value) if len(value.value) <= _DIGITS else _MOST
        case BooleanValueNode():
            return value.value
        case ListValueNode():
            return list(value.values)
    return None


def _conditions(node: SelectionNode) -> Sequence[tuple[str, bool]] | None:
    """Those that depend on variables; None if the others rule the selection out."""
    conditions = []
    for directive in node.directives or ():
        if (name := directive.name.value) in {"skip", "include"}:
            kept = name == "include"
            (condition,) = directive.arguments or ()
            value = _literal(condition.value)
            if isinstance(value, VariableNode):
                conditions.append((value.name.value, kept))
            elif value is not kept:
                return None
    return conditions
