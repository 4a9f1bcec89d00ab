"""Builds the schemas that the gateway serves: the merged graph and, with federation, each subgraph on its own."""

from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Final, cast

from graphql import GraphQLObjectType
from strawberry.types import get_object_definition

from gateway.graphql.execution.documents import DocumentLoader
from gateway.graphql.execution.metrics import OperationNames
from gateway.graphql.execution.options import GraphOptions
from gateway.graphql.execution.runner import ExecutionPolicy, OperationRunner
from gateway.graphql.execution.strawberry_internals import (
    ClientSchema,
    FederationSchema,
    GraphSchema,
    NewRunner,
    SchemaExtensionsRunner,
    schema_config,
)
from gateway.graphql.execution.validation import Validator
from gateway.graphql.federation.entities import entities_field
from gateway.graphql.federation.merging import merge_entities, merge_root_type
from gateway.graphql.federation.registry import SUBGRAPHS
from gateway.graphql.protection.access import guard_root_fields
from gateway.http.stream_limits import StreamLimiter
from gateway.http.work_limits import WorkLimits
from wallet.graph import ERRORS_AS_DATA, SCALARS

GRAPH_PATH: Final = "/graphql"
"""Path of the merged graph."""


def build_schemas(options: GraphOptions, streams: StreamLimiter, work: WorkLimits) -> dict[str, GraphSchema]:
    """Return the schemas by path: the merged graph and, with federation, each subgraph.

    All of them have the limits, metrics and access rules of the gateway.

    Args:
        options: options of the graph.
        streams: limiter of the open streams of each caller.
        work: limits of the work in progress of each client.
    """
    validator = Validator(introspection=not options.production, suggestions=not options.production)
    policy = ExecutionPolicy(
        limits=options.limits,
        validator=validator,
        documents=DocumentLoader(options.limits, validator, compile_operations=options.compiled),
        operation_names=OperationNames(options.documents.operation_names),
        streams=streams,
        work=work,
        are_documents_trusted=options.documents.texts is not None,
    )
    new_runner = partial(OperationRunner, policy)
    schemas = {GRAPH_PATH: build_merged_schema(new_runner, federation=options.federation)}
    if options.federation:
        schemas |= {f"/subgraphs/{name}/graphql": build_subgraph_schema(name, new_runner) for name in SUBGRAPHS}
    for schema in schemas.values():
        guard_root_fields(schema.core_schema)
    return schemas


def build_merged_schema(new_runner: NewRunner = SchemaExtensionsRunner, *, federation: bool = False) -> GraphSchema:
    """Return the graph that is merged from all subgraphs.

    Args:
        new_runner: creates the extensions runner of each execution.
        federation: the graph is itself a subgraph for a federation router, with `_service` and `_entities`.
    """
    return _build_schema(list(SUBGRAPHS.values()), new_runner, federation=federation)


def build_subgraph_schema(name: str, new_runner: NewRunner = SchemaExtensionsRunner) -> GraphSchema:
    """Return one subgraph on its own, for a federation router that composes it with the others.

    Args:
        name: key of the subgraph in the registry.
        new_runner: creates the extensions runner of each execution.
    """
    return _build_schema([SUBGRAPHS[name]], new_runner, federation=True)


def _build_schema(modules: Sequence[ModuleType], new_runner: NewRunner, *, federation: bool) -> GraphSchema:
    entities = merge_entities(modules)
    query_fields = {"entities": entities_field(entities)} if federation and entities else {}
    schema_class = FederationSchema if federation else ClientSchema
    schema = schema_class(
        new_runner,
        query=merge_root_type("Query", modules, query_fields),
        mutation=merge_root_type("Mutation", modules),
        subscription=merge_root_type("Subscription", modules),
        # Strawberry registers `types` before the types of fields. It uses the first class that it registers under a
        # name for all references to that name: here the merged entity.
        types=entities,
        config=schema_config(SCALARS, is_merged=len(modules) > 1),
        exception_handlers=ERRORS_AS_DATA,
    )
    for entity in entities:
        # Strawberry accepts only objects of the merged class for a type with an interface. But a resolver may return
        # the class of any subgraph.
        core_type = schema.core_schema.type_map[get_object_definition(entity, strict=True).name]
        cast("GraphQLObjectType", core_type).is_type_of = None
    return schema
