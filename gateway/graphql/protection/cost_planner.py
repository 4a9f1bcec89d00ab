"""Plans the cost of an operation: finds the fields, the list sizes and the arguments that determine the cost."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from graphql import (
    BooleanValueNode,
    DocumentNode,
    EnumValueNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    SelectionNode,
    SelectionSetNode,
    StringValueNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)
from strawberry.federation.schema_directives import Cost as CostDirective
from strawberry.federation.schema_directives import ListSize

from gateway.graphql.execution.strawberry_internals import strawberry_definition
from gateway.graphql.federation.entities import ENTITIES
from gateway.graphql.protection.field_costs import MAX_COST, Arguments, FieldCost, Size
from gateway.graphql.protection.introspection import introspection_cost
from gateway.graphql.protection.prices import COST_EXTENSION, default_cost, key_cost
from wallet.graph import ARGUMENT_SIZE, ArgumentSize

# These sizes are not in the SDL, because Apollo's composition rejects a slicing argument that is a list.
_SLICING_LISTS: Final = {ENTITIES: "representations", "nodes": "ids", "transferMoneyBatch": "inputs"}
"""Root fields whose list has the size of one of their arguments."""
_LIST_SIZE: Final = 10
"""Assumed number of items of a list that neither an argument nor a directive limits."""

_MAX_DIGITS: Final = 10
"""Number of digits of `MAX_COST`. Longer literals are not parsed: Python refuses integers of thousands of digits."""

_NO_ARGUMENTS: Final = Arguments()


class FieldPlanner:
    """Computes the field costs of an operation. The fields of a fragment are counted at each spread.

    Attributes:
        max_references: largest number of uses of variables in the arguments of one field.
        max_literal_size: largest number of characters of the arguments of one field that uses variables.
    """

    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self.max_references = 0
        self.max_literal_size = 0
        self._schema = schema
        self._fragments = {
            each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)
        }

    def plan(
        self,
        parent: Any,
        selections: SelectionSetNode | None,
        sizes: Mapping[str, Size],
        conditions: Sequence[tuple[str, bool]] = (),
    ) -> Iterator[FieldCost]:
        """Yield the costs of a selection set's fields.

        Args:
            parent: type of the selection set.
            selections: selection set, or None for a leaf.
            sizes: sizes by field name, from `sizedFields` of the field above.
            conditions: `@skip` and `@include` conditions of the fragments around the selection set.
        """
        for node in selections.selections if selections else ():
            node_conditions = _variable_conditions(node)
            if node_conditions is None:
                continue
            all_conditions = (*conditions, *node_conditions)
            if isinstance(node, FieldNode):
                if node.name.value.startswith("__"):
                    yield self._plan_meta_field(node, all_conditions)
                else:
                    yield self._plan_field(parent.fields[node.name.value], node, sizes, all_conditions)
                continue
            fragment = self._fragments[node.name.value] if isinstance(node, FragmentSpreadNode) else node
            if isinstance(fragment, FragmentDefinitionNode | InlineFragmentNode):
                on = fragment.type_condition and self._schema.type_map[fragment.type_condition.name.value]
                yield from self.plan(on or parent, fragment.selection_set, sizes, all_conditions)

    def _plan_meta_field(self, node: FieldNode, conditions: Sequence[tuple[str, bool]]) -> FieldCost:
        """Return the cost of `__typename`, or of a whole introspection."""
        key = (node.alias or node.name).value
        weight = key_cost(key) + introspection_cost(self._schema, self._fragments, node)
        return FieldCost(
            key=key,
            weight=weight,
            size=None,
            rows=None,
            is_sized=False,
            conditions=conditions,
            arguments=self._plan_arguments(node),
            fields=(),
            is_certain=not conditions,
            unit_cost=weight,
        )

    def _plan_field(
        self,
        definition: GraphQLField,
        node: FieldNode,
        sizes: Mapping[str, Size],
        conditions: Sequence[tuple[str, bool]],
    ) -> FieldCost:
        named_type = get_named_type(definition.type)
        directives = _directives(definition)
        if argument := _SLICING_LISTS.get(node.name.value):
            directives[ListSize] = _sliced_by(argument)
        key = (node.alias or node.name).value
        weight = definition.extensions.get(COST_EXTENSION) or default_cost(strawberry_definition(definition))
        if CostDirective in directives:
            weight = directives[CostDirective].weight
        weight += key_cost(key)
        size = Size(_LIST_SIZE)
        sizes_below: dict[str, Size] = {}
        if ListSize in directives:
            size = _size(directives[ListSize], definition, node)
            sizes_below |= dict.fromkeys(directives[ListSize].sized_fields or (), size)
        argument_size = _argument_size(definition)
        if argument_size is not None:
            arguments = _arguments(definition, node, definition.args)
            size_below = Size(_LIST_SIZE, *arguments, bound=argument_size.bound)
            sizes_below |= dict.fromkeys(argument_size.sized_fields, size_below)
        fields = tuple(self.plan(named_type, node.selection_set, sizes_below))
        nullable = get_nullable_type(definition.type)
        rows = next(iter(sizes_below.values()), None)
        is_uniform = not fields or (is_object_type(named_type) and all(each.is_certain for each in fields))
        is_uniform = is_uniform and rows is None
        if is_list_type(nullable):
            is_uniform = is_uniform and is_non_null_type(nullable.of_type)
        return FieldCost(
            key=key,
            weight=weight,
            size=sizes.get(node.name.value, size) if is_list_type(nullable) else None,
            rows=rows,
            is_sized=node.name.value in sizes,
            conditions=conditions,
            arguments=self._plan_arguments(node),
            fields=fields,
            is_certain=is_uniform and not conditions and is_non_null_type(definition.type) and nullable is named_type,
            unit_cost=weight + sum(each.unit_cost or 0 for each in fields) if is_uniform else None,
        )

    def _plan_arguments(self, node: FieldNode) -> Arguments:
        if not node.arguments:
            return _NO_ARGUMENTS
        references = []
        values = [each.value for each in node.arguments]
        size = sum(literal_size(each) for each in values)
        while values:
            match values.pop():
                case VariableNode(name=name):
                    references.append(name.value)
                case ListValueNode(values=items):
                    values += items
                case ObjectValueNode(fields=fields):
                    values += (each.value for each in fields)
        if references:
            self.max_references = max(self.max_references, len(references))
            self.max_literal_size = max(self.max_literal_size, size)
        return Arguments(size, tuple(references))


def literal_size(value: ValueNode) -> int:
    """Return the number of characters of a value in the document."""
    return value.loc.end - value.loc.start if value.loc else 0


def _sliced_by(argument: str) -> ListSize:
    return ListSize(
        assumed_size=None, slicing_arguments=[argument], sized_fields=None, require_one_slicing_argument=False
    )


def _directives(definition: GraphQLField) -> dict[type, Any]:
    return {type(each): each for each in getattr(strawberry_definition(definition), "directives", ())}


def _argument_size(definition: GraphQLField) -> ArgumentSize | None:
    size = getattr(strawberry_definition(definition), "metadata", {}).get(ARGUMENT_SIZE)
    return size if isinstance(size, ArgumentSize) else None


def _size(directive: ListSize, definition: GraphQLField, node: FieldNode) -> Size:
    names = directive.slicing_arguments or ()  # None or UNSET
    assumed = _LIST_SIZE if directive.assumed_size is None else directive.assumed_size
    return Size(assumed, *_arguments(definition, node, names))


def _arguments(
    definition: GraphQLField, node: FieldNode, names: Collection[str]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the values and the defaults of arguments. A variable is returned as its node."""
    defaults = {name: definition.args[name].default_value for name in names}
    given = {each.name.value: literal_value(each.value) for each in node.arguments or () if each.name.value in names}
    return defaults | given, defaults


def literal_value(value: ValueNode) -> Any:
    """Return the value of a literal that a list size or a condition may use.

    Returns:
        An integer, a boolean, a text, a list of nodes, or the node of a variable; None for other literals.
    """
    match value:
        case VariableNode():
            return value
        case IntValueNode():
            return int(value.value) if len(value.value) <= _MAX_DIGITS else MAX_COST
        case BooleanValueNode() | StringValueNode() | EnumValueNode():
            return value.value
        case ListValueNode():
            return list(value.values)
    return None


def _variable_conditions(node: SelectionNode) -> Sequence[tuple[str, bool]] | None:
    """Return the `@skip` and `@include` conditions that depend on variables.

    Returns:
        For each condition, the name of the variable and the value that keeps the selection. None if a literal excludes
        the selection.
    """
    conditions = []
    for directive in node.directives or ():
        if (name := directive.name.value) in {"skip", "include"}:
            keeping = name == "include"
            (condition,) = directive.arguments or ()
            value = literal_value(condition.value)
            if isinstance(value, VariableNode):
                conditions.append((value.name.value, keeping))
            elif value is not keeping:
                return None
    return conditions
