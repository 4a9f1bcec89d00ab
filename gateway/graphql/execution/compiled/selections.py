"""Fields that a selection set has for an object type: fragments are merged, `@skip` and `@include` are applied."""

from collections.abc import Iterable, Mapping
from typing import Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLIncludeDirective,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLSkipDirective,
    InlineFragmentNode,
    Node,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
    VariableValues,
    get_directive_values,
    is_abstract_type,
)
from graphql.language import OperationDefinitionNode

from gateway.graphql.execution.compiled.not_compilable import NotCompilable

Fragments = Mapping[str, FragmentDefinitionNode]

_CONDITIONS: Final = (GraphQLSkipDirective.name, GraphQLIncludeDirective.name)
_UNSUPPORTED: Final = ("defer", "stream", "experimental_disableErrorPropagation")


def find_operation(
    document: DocumentNode, name: str | None
) -> tuple[OperationDefinitionNode, dict[str, FragmentDefinitionNode]]:
    """Return the operation of a document that a request selects, and the fragments of the document.

    Raises:
        NotCompilable: the name selects no operation, or a fragment defines variables.
    """
    operations = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    chosen = [each for each in operations if name is None or (each.name is not None and each.name.value == name)]
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    if not chosen or (name is None and len(chosen) > 1):
        raise NotCompilable("the name selects no operation")
    if any(each.variable_definitions for each in fragments.values()):
        raise NotCompilable("a fragment defines variables")
    return chosen[-1], fragments


def condition_variables(document: DocumentNode) -> frozenset[str]:
    """Return the variables that `@skip` and `@include` use, in all operations of a document.

    Raises:
        NotCompilable: the document uses an experimental directive that changes how an operation is executed.
    """
    names: set[str] = set()
    nodes: list[Node] = list(document.definitions)
    while nodes:
        node = nodes.pop()
        for directive in getattr(node, "directives", None) or ():
            if directive.name.value in _UNSUPPORTED:
                raise NotCompilable(f"the directive @{directive.name.value} is not supported")
            if directive.name.value in _CONDITIONS:
                names.update(
                    each.value.name.value for each in directive.arguments or () if isinstance(each.value, VariableNode)
                )
        selection_set = getattr(node, "selection_set", None)
        if selection_set is not None:
            nodes += selection_set.selections
    return frozenset(names)


class FieldCollector:
    """Collects the fields of selection sets for object types, for one set of variables."""

    def __init__(self, schema: GraphQLSchema, fragments: Fragments, variables: VariableValues) -> None:
        """Args:
        schema: schema that the document is valid for.
        fragments: fragments of the document by name.
        variables: coerced variables; only those of conditions are read.
        """
        self._schema = schema
        self._fragments = fragments
        self._variables = variables

    def collect(
        self, object_type: GraphQLObjectType, selection_sets: Iterable[SelectionSetNode]
    ) -> dict[str, list[FieldNode]]:
        """Return the nodes of the fields of an object by their key in the response, in the order of the response.

        Args:
            object_type: type of the object.
            selection_sets: selection sets of all nodes of the field that returns the object.

        Raises:
            GraphQLError: a condition is null.
        """
        fields: dict[str, list[FieldNode]] = {}
        spread: set[str] = set()
        for each in selection_sets:
            self._visit(each, object_type, fields, spread)
        return fields

    def _visit(
        self,
        selection_set: SelectionSetNode,
        object_type: GraphQLObjectType,
        fields: dict[str, list[FieldNode]],
        spread: set[str],
    ) -> None:
        for node in selection_set.selections:
            if isinstance(node, FieldNode):
                if self._is_included(node):
                    fields.setdefault((node.alias or node.name).value, []).append(node)
                continue
            fragment: FragmentDefinitionNode | InlineFragmentNode | None = None
            if isinstance(node, InlineFragmentNode):
                fragment = node
            elif isinstance(node, FragmentSpreadNode) and node.name.value not in spread:
                fragment = self._fragments.get(node.name.value)
            if fragment is None or not self._is_included(node) or not self._applies(fragment, object_type):
                continue
            if isinstance(node, FragmentSpreadNode):
                spread.add(node.name.value)
            self._visit(fragment.selection_set, object_type, fields, spread)

    def _is_included(self, node: SelectionNode) -> bool:
        if not node.directives:
            return True
        skip = get_directive_values(GraphQLSkipDirective, node, self._variables)
        if skip and skip["if"]:
            return False
        include = get_directive_values(GraphQLIncludeDirective, node, self._variables)
        return not (include and not include["if"])

    def _applies(self, fragment: FragmentDefinitionNode | InlineFragmentNode, object_type: GraphQLObjectType) -> bool:
        if fragment.type_condition is None:
            return True
        condition = self._schema.get_type(fragment.type_condition.name.value)
        if condition is object_type:
            return True
        return is_abstract_type(condition) and self._schema.is_sub_type(condition, object_type)
