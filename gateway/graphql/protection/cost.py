"""Cost of an operation, by `@cost` and `@listSize` on the graph's fields.

The directives are IBM's GraphQL Cost Directives (https://ibm.github.io/graphql-specs/cost-spec.html). They are summed
as Apollo Router does:

- A field costs 1, a field with a resolver 10, unless it has `@cost`. The subgraphs' SDL has `@cost` on all fields that
  would have another cost by the specification's defaults (`prices`). A unit is about 3 µs of the gateway's time.
- A list costs as much as its items. Its size comes from its slicing arguments, else from its assumed size, else it is
  `_LIST_SIZE`. `sizedFields` applies the size to lists one level below, such as a connection's `edges`.
  An `ArgumentSize` in the field's metadata does the same, for sizes that the directive cannot express.
- A field with sized fields costs `ROW_COST` for each row in addition, whatever is selected of it: the rows are read and
  converted before their fields are. The directives cannot express this.
- Each 32 characters of a response key cost 1, for each item that has it.
- An event of a subscription costs 60 in addition.
- The arguments of a field cost 1 for each 32 bytes above 1 KiB, each time that the field is executed: a variable is
  converted and sent at each of its uses. They count in the estimate only.
- Introspection costs as many units as its response has fields, and 1 for 32 bytes of descriptions (`introspection`).

A field that is selected in several places is counted in each. Sizes are upper bounds, so the actual cost is never above
the estimate.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
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
from graphql.language import OperationDefinitionNode, OperationType
from strawberry.federation.schema_directives import Cost as CostDirective
from strawberry.federation.schema_directives import ListSize

from gateway.graphql.execution.strawberry_internals import strawberry_definition
from gateway.graphql.federation.entities import ENTITIES
from gateway.graphql.protection.introspection import introspection_cost
from gateway.graphql.protection.prices import (
    COST_EXTENSION,
    FREE_ARGUMENT_BYTES,
    ROW_COST,
    argument_cost,
    default_cost,
    key_cost,
)
from wallet.graph import ARGUMENT_SIZE, ArgumentSize

# Not a directive in the SDL: Apollo's composition rejects a slicing argument that is a list.
_ENTITIES_SIZE: Final = ListSize(
    assumed_size=None,
    slicing_arguments=["representations"],
    sized_fields=None,
    require_one_slicing_argument=False,
)
_EVENT_COST: Final = 60
"""Cost of an event of a subscription without its fields: reading and sending it takes 180 µs."""

_LIST_SIZE: Final = 10
_MAX_COST: Final = 2**31 - 1
"""Upper bound of every cost: the largest integer that every client can read."""

_MAX_DIGITS: Final = 10
"""Number of digits of `_MAX_COST`. Python refuses to read integers of some thousands of digits."""

Variables = Mapping[str, Any]


@dataclass(slots=True)
class RequestCost:
    """Total cost of the operations of one request.

    Attributes:
        estimated: cost before execution.
        actual: cost of the results.
    """

    estimated: int = 0
    actual: int = 0


class OperationCost:
    """Cost of one operation of a valid document. The plan is computed once; only variables are evaluated per execution.

    Attributes:
        operation: AST of the operation.
        operation_type: query, mutation or subscription.
        name: name of the operation, if it has one.
    """

    def __init__(self, schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> None:
        """Args:
        schema: schema that the document is valid for.
        document: document of the operation.
        operation: operation in the document.
        """
        self.operation = operation
        self.operation_type = operation.operation
        self.name = operation.name.value if operation.name else None
        self._base = _EVENT_COST if operation.operation is OperationType.SUBSCRIPTION else 0
        self._defaults = {
            each.variable.name.value: _literal_value(each.default_value)
            for each in operation.variable_definitions or ()
            if each.default_value
        }
        self._default_sizes = {
            each.variable.name.value: _literal_size(each.default_value)
            for each in operation.variable_definitions or ()
            if each.default_value
        }
        root = schema.get_root_type(operation.operation)
        planner = _FieldPlanner(schema, document)
        self._fields = tuple(planner.plan(root, operation.selection_set, {}))
        self._max_references = planner.max_references
        fixed = _fixed_estimate(self._fields)
        self._fixed = None if fixed is None else min(_MAX_COST, self._base + fixed)

    def estimate(self, variables: Variables | None) -> int:
        """Return the estimated cost.

        Args:
            variables: variables of the execution. They need not be valid.
        """
        sizes = self._argument_sizes(variables)
        if self._fixed is None or sizes:
            values = self._defaults | dict(variables or {})
            return min(_MAX_COST, self._base + sum(each.estimate(values, sizes) for each in self._fields))
        return self._fixed

    def _argument_sizes(self, variables: Variables | None) -> Mapping[str, int]:
        """Return the sizes of the variables in bytes; nothing if those of each field are within the free bytes."""
        if not self._max_references:
            return {}
        total = (_json_size(variables) if variables else 0) + sum(self._default_sizes.values())
        if total * self._max_references <= FREE_ARGUMENT_BYTES:
            return {}
        return self._default_sizes | {name: _json_size(value) for name, value in (variables or {}).items()}

    def measure(self, data: Mapping[str, Any] | None) -> int:
        """Return the actual cost. Nulls cost nothing.

        Args:
            data: `data` of the response.
        """
        return self._base + _measure(self._fields, data) if data else 0


@dataclass(frozen=True, slots=True)
class _Size:
    """Expected number of items of a list.

    Attributes:
        assumed: size if no argument gives one.
        arguments: values of the arguments that the size depends on, by name; variables are nodes.
        defaults: defaults of the arguments, for variables without a value.
        bound: computes the size from the arguments. None: it is the largest one.
    """

    assumed: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    bound: Callable[[Mapping[str, Any]], int] | None = None

    @property
    def is_fixed(self) -> bool:
        return not any(isinstance(each, VariableNode) for each in self.arguments.values())

    def evaluate(self, variables: Variables) -> int:
        values = {
            name: variables.get(each.name.value, self.defaults[name]) if isinstance(each, VariableNode) else each
            for name, each in self.arguments.items()
        }
        if self.bound is not None:
            return self.bound(values)
        sizes = [
            len(each) if isinstance(each, list) else each
            for each in values.values()
            if isinstance(each, list | int | float)
        ]
        return max(0, int(min(max(sizes), _MAX_COST))) if sizes else self.assumed


@dataclass(frozen=True, slots=True)
class _Arguments:
    """Arguments of a selected field.

    Attributes:
        literal_size: number of characters of the arguments in the document.
        references: names of the variables in the arguments, once for each use.
    """

    literal_size: int = 0
    references: Sequence[str] = ()

    def cost(self, sizes: Mapping[str, int]) -> int:
        """Return the cost of one execution.

        Args:
            sizes: sizes of the variables, in bytes.
        """
        return argument_cost(self.literal_size + sum(sizes.get(name, 0) for name in self.references))


@dataclass(frozen=True, slots=True)
class _FieldCost:
    """Cost of one selected field.

    Attributes:
        key: key in the response.
        weight: cost of one item without the fields below.
        size: expected number of items; None for a field that is not a list.
        rows: expected number of rows that the field reads for its sized fields; None if it has none.
        is_sized: the field is one of the sized fields of the field above.
        conditions: `@skip` and `@include` with variables: name of the variable, and the value that keeps the field.
        arguments: arguments of the field.
        fields: costs of the fields below.
        has_references: the arguments of the field, or of one below, have variables.
        is_certain: the field is present once in each parent object, and its items all have the same cost.
        unit_cost: actual cost of one item with all fields below; None if items differ in cost.
        fixed: the estimate for small variables, or None if it depends on their values.
    """

    key: str
    weight: int
    size: _Size | None
    rows: _Size | None
    is_sized: bool
    conditions: Sequence[tuple[str, bool]]
    arguments: _Arguments
    fields: Sequence["_FieldCost"]
    is_certain: bool
    unit_cost: int | None
    fixed: int | None = field(init=False)
    has_references: bool = field(init=False)

    def __post_init__(self) -> None:
        below = _fixed_estimate(self.fields)
        is_fixed = below is not None and not self.conditions
        is_fixed = is_fixed and all(each is None or each.is_fixed for each in (self.size, self.rows))
        object.__setattr__(self, "fixed", self._sum({}, {}) if is_fixed else None)
        has_references = bool(self.arguments.references) or any(each.has_references for each in self.fields)
        object.__setattr__(self, "has_references", has_references)

    def estimate(self, variables: Variables, sizes: Mapping[str, int]) -> int:
        """Return the estimate.

        Args:
            variables: values of the variables.
            sizes: their sizes in bytes; empty if they are small.
        """
        if self.fixed is not None and not (sizes and self.has_references):
            return self.fixed
        if any(variables.get(name) is not keeping for name, keeping in self.conditions):
            return 0
        return self._sum(variables, sizes)

    def _sum(self, variables: Variables, sizes: Mapping[str, int]) -> int:
        count = 1 if self.size is None else self.size.evaluate(variables)
        rows = 0 if self.rows is None else self.rows.evaluate(variables)
        below = sum(each.estimate(variables, sizes) for each in self.fields)
        return self.arguments.cost(sizes) + count * (self.weight + ROW_COST * rows + below)

    def measure(self, item: Mapping[str, Any]) -> int:
        """Return the actual cost of one item. Rows count only if the response shows how many there are."""
        rows = 0
        if self.rows is not None:
            rows = max((len(item.get(each.key) or ()) for each in self.fields if each.is_sized), default=0)
        return self.weight + ROW_COST * rows + _measure(self.fields, item)


_NO_ARGUMENTS: Final = _Arguments()


def _fixed_estimate(fields: Sequence[_FieldCost]) -> int | None:
    """Return the sum of the estimates, or None if one of them depends on variables."""
    sums = [each.fixed for each in fields]
    return None if None in sums else sum(each for each in sums if each is not None)


def _measure(fields: Sequence[_FieldCost], data: Mapping[str, Any]) -> int:
    total = 0
    for each in fields:
        value = data.get(each.key)
        if value is None:
            continue
        if each.unit_cost is not None:
            total += each.unit_cost if each.size is None else each.unit_cost * len(value)
        elif each.size is None:
            total += each.measure(value)
        else:
            total += sum(each.measure(item) for item in value if item is not None)
    return total


class _FieldPlanner:
    """Computes the field costs of an operation, with fragments spread.

    Attributes:
        max_references: largest number of variables in the arguments of one field.
    """

    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self.max_references = 0
        self._schema = schema
        self._fragments = {
            each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)
        }

    def plan(
        self,
        parent: Any,
        selections: SelectionSetNode | None,
        sizes: Mapping[str, _Size],
        conditions: Sequence[tuple[str, bool]] = (),
    ) -> Iterator[_FieldCost]:
        """Yield the costs of a selection set's fields.

        Args:
            parent: type of the selection set.
            selections: selection set, or None for a leaf.
            sizes: sizes by field name, from `sizedFields` of the field above.
            conditions: conditions of the fragments around the selection set.
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

    def _plan_meta_field(self, node: FieldNode, conditions: Sequence[tuple[str, bool]]) -> _FieldCost:
        """Return the cost of `__typename`, or of a whole introspection."""
        key = (node.alias or node.name).value
        weight = key_cost(key) + introspection_cost(self._schema, self._fragments, node)
        return _FieldCost(
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
        sizes: Mapping[str, _Size],
        conditions: Sequence[tuple[str, bool]],
    ) -> _FieldCost:
        named_type = get_named_type(definition.type)
        directives = _directives(definition) | ({ListSize: _ENTITIES_SIZE} if node.name.value == ENTITIES else {})
        key = (node.alias or node.name).value
        weight = definition.extensions.get(COST_EXTENSION) or default_cost(strawberry_definition(definition))
        if CostDirective in directives:
            weight = directives[CostDirective].weight
        weight += key_cost(key)
        size = _Size(_LIST_SIZE)
        sizes_below: dict[str, _Size] = {}
        if ListSize in directives:
            size = _size(directives[ListSize], definition, node)
            sizes_below |= dict.fromkeys(directives[ListSize].sized_fields or (), size)
        argument_size = _argument_size(definition)
        if argument_size is not None:
            arguments = _arguments(definition, node, definition.args)
            size_below = _Size(_LIST_SIZE, *arguments, bound=argument_size.bound)
            sizes_below |= dict.fromkeys(argument_size.sized_fields, size_below)
        fields = tuple(self.plan(named_type, node.selection_set, sizes_below))
        nullable = get_nullable_type(definition.type)
        rows = next(iter(sizes_below.values()), None)
        is_uniform = not fields or (is_object_type(named_type) and all(each.is_certain for each in fields))
        is_uniform = is_uniform and rows is None
        if is_list_type(nullable):
            is_uniform = is_uniform and is_non_null_type(nullable.of_type)
        return _FieldCost(
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

    def _plan_arguments(self, node: FieldNode) -> _Arguments:
        if not node.arguments:
            return _NO_ARGUMENTS
        references = []
        values = [each.value for each in node.arguments]
        size = sum(_literal_size(each) for each in values)
        while values:
            match values.pop():
                case VariableNode(name=name):
                    references.append(name.value)
                case ListValueNode(values=items):
                    values += items
                case ObjectValueNode(fields=fields):
                    values += (each.value for each in fields)
        self.max_references = max(self.max_references, len(references))
        return _Arguments(size, tuple(references))


def _literal_size(value: ValueNode) -> int:
    """Return the number of characters of a value in the document."""
    return value.loc.end - value.loc.start if value.loc else 0


def _json_size(value: Any) -> int:
    """Return the number of bytes of a JSON value."""
    try:
        return len(orjson.dumps(value))
    except TypeError:  # nested too deeply
        return _MAX_COST


def _directives(definition: GraphQLField) -> dict[type, Any]:
    return {type(each): each for each in getattr(strawberry_definition(definition), "directives", ())}


def _argument_size(definition: GraphQLField) -> ArgumentSize | None:
    size = getattr(strawberry_definition(definition), "metadata", {}).get(ARGUMENT_SIZE)
    return size if isinstance(size, ArgumentSize) else None


def _size(directive: ListSize, definition: GraphQLField, node: FieldNode) -> _Size:
    names = directive.slicing_arguments or ()  # None or UNSET
    assumed = _LIST_SIZE if directive.assumed_size is None else directive.assumed_size
    return _Size(assumed, *_arguments(definition, node, names))


def _arguments(
    definition: GraphQLField, node: FieldNode, names: Collection[str]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the values of arguments, and their defaults. Values that are variables are nodes."""
    defaults = {name: definition.args[name].default_value for name in names}
    given = {each.name.value: _literal_value(each.value) for each in node.arguments or () if each.name.value in names}
    return defaults | given, defaults


def _literal_value(value: ValueNode) -> Any:
    """Return the value of a literal that a list size or a condition may use.

    Returns:
        An integer, a boolean, a text, a list of nodes, or the node of a variable; None for other literals.
    """
    match value:
        case VariableNode():
            return value
        case IntValueNode():
            return int(value.value) if len(value.value) <= _MAX_DIGITS else _MAX_COST
        case BooleanValueNode() | StringValueNode() | EnumValueNode():
            return value.value
        case ListValueNode():
            return list(value.values)
    return None


def _variable_conditions(node: SelectionNode) -> Sequence[tuple[str, bool]] | None:
    """Return the `@skip` and `@include` conditions that depend on variables.

    Returns:
        Name of the variable and the value that keeps the selection, for each; None if a literal excludes the selection.
    """
    conditions = []
    for directive in node.directives or ():
        if (name := directive.name.value) in {"skip", "include"}:
            keeping = name == "include"
            (condition,) = directive.arguments or ()
            value = _literal_value(condition.value)
            if isinstance(value, VariableNode):
                conditions.append((value.name.value, keeping))
            elif value is not keeping:
                return None
    return conditions
