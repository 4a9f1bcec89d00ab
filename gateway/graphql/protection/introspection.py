"""Cost of introspection: the estimated number of fields in the response, from the lengths of the schema's lists.

The cost of a description grows with its length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLNamedType,
    GraphQLSchema,
    SelectionSetNode,
    is_abstract_type,
    is_enum_type,
    is_input_object_type,
    is_interface_type,
    is_object_type,
    is_wrapping_type,
)

from gateway.graphql.protection.prices import FIELD_COST, TEXT_BYTES_PER_UNIT, key_cost

Fragments = Mapping[str, FragmentDefinitionNode]


@dataclass(frozen=True, slots=True)
class _ListLength:
    """Length of a list field or of a description in the introspection of a schema.

    Attributes:
        mean: mean over all objects with the field.
        longest: maximum.
    """

    mean: float
    longest: int


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Sizes of a schema.

    Attributes:
        lists: lengths of the lists, by field name.
        descriptions: lengths of the descriptions, in characters.
        wrapped: shares of the types of all fields, input fields and arguments. Item n: of the types with at least n
            wrappers (list or non-null), the share that has more than n.
    """

    lists: Mapping[str, _ListLength]
    descriptions: _ListLength
    wrapped: tuple[float, ...]


def introspection_cost(schema: GraphQLSchema, fragments: Fragments, node: FieldNode) -> int:
    """Return the cost of `__schema`, `__type` or `__typename`, with all fields below.

    Args:
        schema: schema that is introspected.
        fragments: fragments of the document by name.
        node: the selected field.
    """
    is_complete = node.name.value == "__schema"
    return FIELD_COST + round(_Counter(_measure_schema(schema), fragments).count(node.selection_set, 1, is_complete))


class _Counter:
    """Counts the fields of the response to a selection set."""

    def __init__(self, sizes: _Sizes, fragments: Fragments) -> None:
        self._sizes = sizes
        self._fragments = fragments

    def count(self, selections: SelectionSetNode | None, parents: float, is_complete: bool, wrappers: int = 0) -> float:
        """Return the cost of a selection set.

        Args:
            selections: selection set, or None for a leaf.
            parents: number of objects that have this selection set.
            is_complete: these are all objects of their kind in the schema, each equally often, so lists are counted
                with their mean length. Otherwise they are counted with their maximum length.
            wrappers: number of consecutive `ofType` fields directly above.
        """
        total = 0.0
        for node in selections.selections if selections else ():
            if not isinstance(node, FieldNode):
                fragment = self._fragments[node.name.value] if isinstance(node, FragmentSpreadNode) else node
                total += self.count(getattr(fragment, "selection_set", None), parents, is_complete, wrappers)
                continue
            total += parents * (FIELD_COST + key_cost((node.alias or node.name).value))
            if node.name.value == "description":
                length = self._sizes.descriptions
                total += parents * (length.mean if is_complete else length.longest) / TEXT_BYTES_PER_UNIT
            if node.selection_set is not None:
                total += self._count_below(node, parents, is_complete, wrappers)
        return total

    def _count_below(self, node: FieldNode, parents: float, is_complete: bool, wrappers: int) -> float:
        name = node.name.value
        if name == "ofType":
            shares = self._sizes.wrapped
            share = shares[wrappers] if wrappers < len(shares) else 0
            return self.count(node.selection_set, parents * share, False, wrappers + 1)
        length = self._sizes.lists.get(name)
        if length is None:
            return self.count(node.selection_set, parents, False)
        items = parents * (length.mean if is_complete else length.longest)
        is_complete = is_complete and name not in {"directives", "interfaces", "possibleTypes"}
        return self.count(node.selection_set, items, is_complete)


@lru_cache(maxsize=16)
def _measure_schema(schema: GraphQLSchema) -> _Sizes:
    types = list(schema.type_map.values())
    fields = [field for each in types for field in _fields(each)]
    inputs = [field for each in types if is_input_object_type(each) for field in each.fields.values()]
    arguments = [argument for each in (*fields, *schema.directives) for argument in each.args.values()]
    lists = {
        "types": _ListLength(len(types), len(types)),
        "directives": _ListLength(len(schema.directives), len(schema.directives)),
        "fields": _list_length([len(_fields(each)) for each in types]),
        "args": _list_length([len(each.args) for each in (*fields, *schema.directives)]),
        "inputFields": _list_length([len(each.fields) if is_input_object_type(each) else 0 for each in types]),
        "enumValues": _list_length([len(each.values) if is_enum_type(each) else 0 for each in types]),
        "interfaces": _list_length([len(getattr(each, "interfaces", ())) for each in types]),
        "possibleTypes": _list_length(
            [len(schema.get_possible_types(each)) if is_abstract_type(each) else 0 for each in types]
        ),
    }
    values = [value for each in types if is_enum_type(each) for value in each.values.values()]
    described = (*types, *fields, *inputs, *arguments, *values, *schema.directives)
    descriptions = _list_length([len(each.description or "") for each in described])
    wrappers = [_count_wrappers(each.type) for each in (*fields, *inputs, *arguments)]
    left = [sum(each >= depth for each in wrappers) for depth in range(max(wrappers) + 1)]
    return _Sizes(lists, descriptions, tuple(after / before for before, after in pairwise(left)))


def _list_length(lengths: list[int]) -> _ListLength:
    return _ListLength(sum(lengths) / len(lengths), max(lengths))


def _fields(type_: GraphQLNamedType) -> list[Any]:
    return list(type_.fields.values()) if is_object_type(type_) or is_interface_type(type_) else []


def _count_wrappers(type_: Any) -> int:
    count = 0
    while is_wrapping_type(type_):
        type_, count = type_.of_type, count + 1
    return count
