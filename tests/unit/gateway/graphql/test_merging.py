"""The merged graph has all that the subgraphs have, once."""

import gc
import weakref
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
import strawberry
from graphql import GraphQLObjectType, GraphQLUnionType, build_schema, specified_directives, validate_schema

from gateway.graphql.execution import schemas
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


@strawberry.type
class Thing:
    number: int
    text: str | None = None
    late: datetime | None = None


@strawberry.input
class Plain:
    number: int
    text: str | None
    from_: str = strawberry.field(default="here", name="from")
    until: datetime | None = None


@strawberry.input
class Change:
    text: strawberry.Maybe[str | None]


@strawberry.input
class Both:
    plain: Plain
    change: Change


@strawberry.type
class Query:
    @strawberry.field
    def plain(self, info: strawberry.Info[list[object], None], given: Plain) -> None:
        info.context.append(given)

    @strawberry.field
    def both(self, info: strawberry.Info[list[object], None], given: Both) -> None:
        info.context.append(given)

    @strawberry.field
    def things(self) -> list[Thing | None]:
        return [
            Thing(number=1, text="a", late=datetime(2026, 11, 1, tzinfo=UTC)),
            Thing(number=0),
            Thing(number=None),  # type: ignore[arg-type]  # as a defect would have it
            Thing(number="many"),  # type: ignore[arg-type]
        ]


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one subgraph that there is."""
    part = ModuleType("part")
    vars(part)["Query"] = Query
    monkeypatch.setattr(schemas, "SUBGRAPHS", {"part": part})


@pytest.mark.usefixtures("part")
class TestLeaves:
    async def test_are_what_they_are_or_an_error_in_their_place(self) -> None:
        result = await build_merged_schema().execute("{ things { __typename n: number text late } }")
        assert result.data == {
            "things": [
                {"__typename": "Thing", "n": 1, "text": "a", "late": "2026-11-01T00:00:00+00:00"},
                {"__typename": "Thing", "n": 0, "text": None, "late": None},
                None,
                None,
            ],
        }
        assert [(error.path, error.message) for error in result.errors or ()] == [
            (["things", 2, "n"], "Cannot return null for non-nullable field Thing.number."),
            (["things", 3, "n"], "Int cannot represent non-integer value: 'many'"),
        ]


@pytest.mark.usefixtures("part")
class TestInputs:
    async def test_have_what_is_given_and_defaults_for_the_rest(self) -> None:
        until = datetime(2026, 11, 1, tzinfo=UTC)
        given = {
            "plain(given: {number: 1})": Plain(number=1, text=None),
            'plain(given: {number: 1, text: null, until: null, from: ""})': Plain(number=1, text=None, from_=""),
            f'plain(given: {{number: 1, text: "a", until: "{until.isoformat()}"}})': Plain(
                number=1, text="a", until=until
            ),
            "both(given: {plain: {number: 2}, change: {}})": Both(
                plain=Plain(number=2, text=None), change=Change(text=None)
            ),
            "both(given: {plain: {number: 2}, change: {text: null}})": Both(
                plain=Plain(number=2, text=None), change=Change(text=strawberry.Some(None))
            ),
        }
        query = "".join(f" x{number}: {field}" for number, field in enumerate(given))
        taken: list[object] = []
        result = await build_merged_schema().execute(f"{{ {query} }}", context_value=taken)
        assert (result.errors, taken) == (None, list(given.values()))


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
