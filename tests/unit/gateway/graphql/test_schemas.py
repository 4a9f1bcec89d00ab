"""The merged schema and the schemas of the subgraphs."""

import gc
import weakref
from collections import defaultdict
from pathlib import Path

from graphql import (
    GraphQLObjectType,
    GraphQLUnionType,
    build_schema,
    is_scalar_type,
    specified_directives,
    specified_scalar_types,
    validate_schema,
)

from gateway.graphql.execution.schemas import build_merged_schema, build_subgraph_schema
from gateway.graphql.execution.strawberry_internals import GraphSchema
from gateway.graphql.federation.registry import SUBGRAPHS

ROOT = Path(__file__).parents[4]


class TestMergedSchema:
    def test_merged_entity_has_the_fields_of_all_subgraphs(self) -> None:
        account = build_merged_schema().core_schema.type_map["Account"]
        assert isinstance(account, GraphQLObjectType)
        assert {"id", "balance", "operations", "statistics", "topUps"} <= set(account.fields)

    def test_merged_schema_has_every_field_of_every_subgraph(self) -> None:
        merged = build_merged_schema().core_schema.type_map
        for name in SUBGRAPHS:
            for type_name, type_ in build_subgraph_schema(name).core_schema.type_map.items():
                if isinstance(type_, GraphQLObjectType) and not type_name.startswith("_"):
                    merged_type = merged[type_name]
                    assert isinstance(merged_type, GraphQLObjectType)
                    missing = {field for field in type_.fields if not field.startswith("_")} - set(merged_type.fields)
                    assert not missing, f"{name}.{type_name} lost {missing}"

    def test_types_with_one_name_have_the_same_fields_in_all_subgraphs(self) -> None:
        # Strawberry does not check this in the merged schema, in which entities and root types differ on purpose.
        merged = {"Account", "Transfer", "TopUp", "User", "Query", "Mutation", "Subscription", "_Service"}
        fields: dict[str, set[frozenset[str]]] = defaultdict(set)
        for name in SUBGRAPHS:
            for type_name, type_ in build_subgraph_schema(name).core_schema.type_map.items():
                if isinstance(type_, GraphQLObjectType) and type_name not in merged:
                    fields[type_name].add(frozenset(f"{key}: {field.type}" for key, field in type_.fields.items()))
        assert {name for name, meanings in fields.items() if len(meanings) > 1} == set()

    def test_every_scalar_of_the_graph_has_a_specification(self) -> None:
        types = build_merged_schema().core_schema.type_map.values()
        scalars = {each.name: each.specified_by_url for each in types if is_scalar_type(each)}
        own = {name: url for name, url in scalars.items() if name not in specified_scalar_types}
        assert own.keys() == {"DateTime", "Metadata", "Secret"}
        assert all(url and url.startswith("https://") for url in own.values())

    def test_merged_schema_is_valid(self) -> None:
        schema = build_merged_schema().core_schema
        assert validate_schema(schema) == []

    async def test_execution_leaves_no_reference_to_its_context(self) -> None:
        class Context:
            pass

        context = Context()
        reference = weakref.ref(context)
        gc.disable()
        try:
            result = await build_merged_schema().execute("{ __typename }", context_value=context)
            assert result.data
            del context, result
            assert reference() is None
        finally:
            gc.enable()

    def test_merged_schema_has_no_federation_fields_and_directives(self) -> None:
        schema = build_merged_schema().core_schema
        assert schema.query_type is not None
        assert not {"_service", "_entities"} & set(schema.query_type.fields)
        assert schema.directives == specified_directives
        assert not {name for name in schema.type_map if name.startswith("_") and not name.startswith("__")}


class TestEntities:
    def test_entity_union_lists_each_entity_once(self) -> None:
        assert entities(build_merged_schema(federation=True)) == ["Account", "TopUp", "Transfer", "User"]
        assert entities(build_subgraph_schema("bank")) == ["Account", "Transfer", "User"]
        assert entities(build_subgraph_schema("card")) == ["Account", "TopUp", "Transfer"]
        assert entities(build_subgraph_schema("analytics")) == ["Account"]

    def test_unresolvable_key_in_one_subgraph_leaves_the_merged_key_resolvable(self) -> None:
        assert 'type Transfer @key(fields: "id", resolvable: false) {' in build_subgraph_schema("card").as_str()
        assert 'type Transfer implements Node @key(fields: "id") {' in build_merged_schema(federation=True).as_str()


def entities(schema: GraphSchema) -> list[str]:
    union = schema.core_schema.type_map["_Entity"]
    assert isinstance(union, GraphQLUnionType)
    return [type_.name for type_ in union.types]


class TestSDL:
    def test_committed_sdl_of_each_subgraph_is_current(self) -> None:
        for name in SUBGRAPHS:
            committed = ROOT / "subgraphs" / name / "graph" / "schema.graphql"
            assert committed.read_text() == build_subgraph_schema(name).as_str() + "\n"

    def test_committed_sdl_of_the_graph_is_valid(self) -> None:
        text = (ROOT / "gateway" / "schema.graphql").read_text()
        assert build_schema(text).query_type is not None
