"""The merged graph has all that the subgraphs have, once."""

import gc
import weakref
from collections import defaultdict
from pathlib import Path

from graphql import GraphQLObjectType, GraphQLUnionType, build_schema, specified_directives, validate_schema

from gateway.graphql.execution.schemas import build_merged_schema, build_subgraph_schema
from gateway.graphql.execution.strawberry_internals import GraphSchema
from gateway.graphql.federation.registry import SUBGRAPHS

ROOT = Path(__file__).parents[4]


class TestCompose:
    def test_merges_the_parts_of_an_entity(self) -> None:
        account = build_merged_schema().core_schema.type_map["Account"]
        assert isinstance(account, GraphQLObjectType)
        assert {"id", "balance", "operations", "statistics", "topUps"} <= set(account.fields)

    def test_has_every_field_of_every_subgraph(self) -> None:
        merged = build_merged_schema().core_schema.type_map
        for name in SUBGRAPHS:
            for type_name, type_ in build_subgraph_schema(name).core_schema.type_map.items():
                if isinstance(type_, GraphQLObjectType) and not type_name.startswith("_"):
                    whole = merged[type_name]
                    assert isinstance(whole, GraphQLObjectType)
                    missing = {field for field in type_.fields if not field.startswith("_")} - set(whole.fields)
                    assert not missing, f"{name}.{type_name} lost {missing}"

    def test_gives_a_name_one_meaning(self) -> None:
        # The merged schema does not check it: entities and roots are meant to differ. Everything else must not.
        parts = {"Account", "Transfer", "TopUp", "User", "Query", "Mutation", "Subscription", "_Service"}
        fields: dict[str, set[frozenset[str]]] = defaultdict(set)
        for name in SUBGRAPHS:
            for type_name, type_ in build_subgraph_schema(name).core_schema.type_map.items():
                if isinstance(type_, GraphQLObjectType) and type_name not in parts:
                    fields[type_name].add(frozenset(f"{key}: {field.type}" for key, field in type_.fields.items()))
        assert {name for name, meanings in fields.items() if len(meanings) > 1} == set()

    def test_is_a_valid_schema(self) -> None:
        schema = build_merged_schema().core_schema
        assert validate_schema(schema) == []

    async def test_leaves_nothing_of_an_execution_behind(self) -> None:
        class Context:
            pass

        context = Context()
        gone = weakref.ref(context)
        gc.disable()
        try:
            result = await build_merged_schema().execute("{ __typename }", context_value=context)
            assert result.data
            del context, result
            assert gone() is None
        finally:
            gc.enable()

    def test_hides_what_is_federations_own(self) -> None:
        schema = build_merged_schema().core_schema
        assert schema.query_type is not None
        assert not {"_service", "_entities"} & set(schema.query_type.fields)
        assert schema.directives == specified_directives
        assert not {name for name in schema.type_map if name.startswith("_") and not name.startswith("__")}


class TestFederation:
    def test_lists_each_entity_once_whatever_parts_it_has(self) -> None:
        assert entities(build_merged_schema(federation=True)) == ["Account", "TopUp", "Transfer", "User"]
        assert entities(build_subgraph_schema("bank")) == ["Account", "Transfer", "User"]
        assert entities(build_subgraph_schema("card")) == ["Account", "TopUp", "Transfer"]
        assert entities(build_subgraph_schema("analytics")) == ["Account"]

    def test_a_part_that_only_refers_to_an_entity_takes_nothing_from_the_whole(self) -> None:
        assert 'type Transfer @key(fields: "id", resolvable: false) {' in build_subgraph_schema("card").as_str()
        assert 'type Transfer @key(fields: "id") {' in build_merged_schema(federation=True).as_str()


def entities(schema: GraphSchema) -> list[str]:
    union = schema.core_schema.type_map["_Entity"]
    assert isinstance(union, GraphQLUnionType)
    return [type_.name for type_ in union.types]


class TestSDL:
    def test_of_each_subgraph_is_what_is_committed(self) -> None:
        for name in SUBGRAPHS:
            committed = ROOT / "subgraphs" / name / "graph" / "schema.graphql"
            assert committed.read_text() == build_subgraph_schema(name).as_str() + "\n"

    def test_of_the_whole_parses(self) -> None:
        text = (ROOT / "gateway" / "schema.graphql").read_text()
        assert build_schema(text).query_type is not None
