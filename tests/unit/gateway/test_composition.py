"""The merged graph has all that the subgraphs have, once."""

import gc
import weakref
from collections import defaultdict
from pathlib import Path

from graphql import GraphQLObjectType, build_schema, validate_schema

from gateway.composition import SUBGRAPHS, compose

ROOT = Path(__file__).parents[3]


class TestCompose:
    def test_merges_the_parts_of_an_entity(self) -> None:
        account = compose()._schema.type_map["Account"]
        assert isinstance(account, GraphQLObjectType)
        assert {"id", "balance", "operations", "statistics", "topUps"} <= set(account.fields)

    def test_has_every_field_of_every_subgraph(self) -> None:
        merged = compose()._schema.type_map
        for name, module in SUBGRAPHS.items():
            for type_name, type_ in module.schema()._schema.type_map.items():
                if isinstance(type_, GraphQLObjectType) and not type_name.startswith("_"):
                    whole = merged[type_name]
                    assert isinstance(whole, GraphQLObjectType)
                    missing = {field for field in type_.fields if not field.startswith("_")} - set(whole.fields)
                    assert not missing, f"{name}.{type_name} lost {missing}"

    def test_gives_a_name_one_meaning(self) -> None:
        # The merged schema does not check it: entities and roots are meant to differ. Everything else must not.
        parts = {"Account", "Transfer", "TopUp", "Query", "Mutation", "Subscription", "_Service"}
        fields: dict[str, set[frozenset[str]]] = defaultdict(set)
        for module in SUBGRAPHS.values():
            for type_name, type_ in module.schema()._schema.type_map.items():
                if isinstance(type_, GraphQLObjectType) and type_name not in parts:
                    fields[type_name].add(frozenset(f"{name}: {field.type}" for name, field in type_.fields.items()))
        assert {name for name, meanings in fields.items() if len(meanings) > 1} == set()

    def test_is_a_valid_schema(self) -> None:
        schema = compose()._schema
        assert validate_schema(schema) == []

    async def test_leaves_nothing_of_an_execution_behind(self) -> None:
        class Context:
            pass

        context = Context()
        gone = weakref.ref(context)
        gc.disable()
        try:
            result = await compose().execute("{ __typename }", context_value=context)
            assert result.data
            del context, result
            assert gone() is None
        finally:
            gc.enable()

    def test_hides_federations_own_fields(self) -> None:
        query = compose()._schema.query_type
        assert query is not None
        assert not {"_service", "_entities"} & set(query.fields)


class TestSDL:
    def test_of_each_subgraph_is_what_is_committed(self) -> None:
        for name, module in SUBGRAPHS.items():
            committed = ROOT / "subgraphs" / name / "schema.graphql"
            assert committed.read_text() == module.schema().as_str() + "\n"

    def test_of_the_whole_parses(self) -> None:
        text = (ROOT / "gateway" / "schema.graphql").read_text()
        assert build_schema(text).query_type is not None
