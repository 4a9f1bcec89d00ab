"""Compilation of the selections of an operation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLLeafType,
    GraphQLObjectType,
    GraphQLSchema,
    SelectionSetNode,
    get_named_type,
    get_nullable_type,
    is_abstract_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
    located_error,
)

from gateway.graphql.execution.compiled.arguments import compile_arguments
from gateway.graphql.execution.compiled.errors import Locate
from gateway.graphql.execution.compiled.fields import FieldPlan, OperationNodes
from gateway.graphql.execution.compiled.inputs import InputCompiler
from gateway.graphql.execution.compiled.leaves import CompleteLeaf, compile_leaf, exact_class
from gateway.graphql.execution.compiled.lists import ListPlan, LongLists
from gateway.graphql.execution.compiled.not_compilable import NotCompilable
from gateway.graphql.execution.compiled.objects import ConcurrentFields, FieldsPlan, SerialFields
from gateway.graphql.execution.compiled.selections import FieldCollector
from gateway.graphql.execution.compiled.sources import source_reader
from gateway.graphql.execution.compiled.types import AbstractPlan, ObjectPlan
from gateway.graphql.execution.compiled.values import LeafPlan, ValuePlan, ValueSite


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of compiled operations.

    Attributes:
        locate: builds the errors of the response. graphql-core's finds the line of each error in the document.
        long_lists: how to pause during long lists; None: without pauses.
        max_fields: maximum number of compiled fields of one operation, those of all possible types of interfaces and
            unions included.
        max_variable_errors: number of invalid variables after which graphql-core stops.
        hide_suggestions: messages suggest no names of the schema.
    """

    locate: Locate = located_error
    long_lists: LongLists | None = None
    max_fields: int = 1_000
    max_variable_errors: int = 50
    hide_suggestions: bool = False


class SchemaParts:
    """Compiled parts of a schema, which all its operations share.

    Attributes:
        schema: the schema.
        options: options of the operations.
        inputs: compiles readers of input types.
    """

    def __init__(self, schema: GraphQLSchema, options: Options) -> None:
        self.schema = schema
        self.options = options
        self.inputs = InputCompiler()
        self._leaves: dict[str, CompleteLeaf] = {}

    def leaf(self, type_: GraphQLLeafType) -> CompleteLeaf:
        """Return the function that completes the values of a scalar or an enum."""
        complete = self._leaves.get(type_.name)
        if complete is None:
            complete = self._leaves[type_.name] = compile_leaf(type_)
        return complete


class SelectionCompiler:
    """Compiles the selections of one operation for one set of conditions.

    Attributes:
        fields: number of compiled fields.
    """

    def __init__(self, parts: SchemaParts, nodes: OperationNodes, collector: FieldCollector, max_fields: int) -> None:
        """Args:
        parts: compiled parts of the schema.
        nodes: parts of the document.
        collector: collects the fields of selection sets.
        max_fields: maximum number of compiled fields.
        """
        self.fields = 0
        self._parts = parts
        self._nodes = nodes
        self._collector = collector
        self._max_fields = max_fields

    def compile(self, root_type: GraphQLObjectType, *, serially: bool) -> FieldsPlan:
        """Return the plan of the root fields.

        Args:
            root_type: type of the operation.
            serially: execute the root fields one after another.

        Raises:
            NotCompilable: the operation has introspection or too many fields.
            GraphQLError: a condition is null.
        """
        fields = self._compile_fields(root_type, [self._nodes.operation.selection_set])
        return SerialFields(fields) if serially else ConcurrentFields(fields)

    def _compile_fields(
        self, object_type: GraphQLObjectType, selection_sets: Sequence[SelectionSetNode]
    ) -> list[FieldPlan]:
        fields = []
        for key, nodes in self._collector.collect(object_type, selection_sets).items():
            name = nodes[0].name.value
            definition = self._parts.schema.get_field(object_type, name)
            if definition is None:
                continue
            if name in {"__schema", "__type"}:
                raise NotCompilable("the operation has introspection")
            self.fields += 1
            if self.fields > self._max_fields:
                raise NotCompilable("the operation has too many fields")
            fields.append(self._compile_field(key, object_type, definition, nodes))
        return fields

    def _compile_field(
        self, key: str, object_type: GraphQLObjectType, definition: GraphQLField, nodes: list[FieldNode]
    ) -> FieldPlan:
        name = nodes[0].name.value
        options = self._parts.options
        site = ValueSite(f"{object_type.name}.{name}", nodes, options.locate)
        read_arguments = compile_arguments(definition, nodes[0], hide_suggestions=options.hide_suggestions)
        named, nullable = get_named_type(definition.type), get_nullable_type(definition.type)
        value = self._compile_type(definition.type, site)
        return FieldPlan(
            key,
            object_type,
            definition,
            self._nodes,
            value,
            read=None if read_arguments else source_reader(object_type, definition, name),
            read_arguments=read_arguments,
            exact_class=exact_class(nullable),
            complete_leaf=self._parts.leaf(nullable) if is_leaf_type(nullable) else None,
            execute_object=value.execute if isinstance(value, ObjectPlan) else None,
            needs_info=is_abstract_type(named) or (is_object_type(named) and named.is_type_of is not None),
        )

    def _compile_type(self, type_: Any, site: ValueSite) -> ValuePlan:
        is_non_null = is_non_null_type(type_)
        nullable: Any = get_nullable_type(type_)
        if is_list_type(nullable):
            item = self._compile_type(nullable.of_type, site)
            return ListPlan(site, item, self._parts.options.long_lists, is_non_null=is_non_null)
        if is_leaf_type(nullable):
            return LeafPlan(site, self._parts.leaf(nullable), is_non_null=is_non_null)
        if is_abstract_type(nullable):
            schema = self._parts.schema
            possible_types = schema.get_possible_types(nullable)
            objects = {each.name: self._compile_object(each, site, is_non_null=False) for each in possible_types}
            return AbstractPlan(site, schema, nullable, objects, is_non_null=is_non_null)
        return self._compile_object(nullable, site, is_non_null=is_non_null)

    def _compile_object(self, type_: GraphQLObjectType, site: ValueSite, *, is_non_null: bool) -> ObjectPlan:
        selection_sets = [each.selection_set for each in site.nodes if each.selection_set]
        fields = ConcurrentFields(self._compile_fields(type_, selection_sets))
        return ObjectPlan(site, type_, fields, is_non_null=is_non_null)
