"""Estimated and actual cost of operations, by the directives of the fields."""

from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import pytest
import strawberry
from graphql import (
    DocumentNode,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    is_list_type,
    parse,
    validate,
)
from graphql.language import OperationDefinitionNode
from strawberry.federation.schema_directives import Cost as CostDirective
from strawberry.federation.schema_directives import ListSize

from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.execution.strawberry_internals import GraphSchema
from gateway.graphql.protection.cost import OperationCost
from wallet.graph import PAGED, PAGED_FORWARD, cost_directive, list_size_directive

GRAPH = build_merged_schema().core_schema
ACCOUNT = "123e4567-e89b-12d3-a456-426614174000"
PAGE = "edges { node { amount { amount } } }"


@strawberry.type
class Leaf:
    name: str | None = None


@strawberry.type
class Other:
    leaf: Leaf | None


def sliced(first: int | None = None, last: int | None = None) -> list[Leaf]:
    raise NotImplementedError


def by_keys(keys: list[str] | None = None, size: int | None = 7) -> list[Leaf]:
    raise NotImplementedError


def sliced_by(*arguments: str) -> ListSize:
    return ListSize(assumed_size=None, slicing_arguments=list(arguments), sized_fields=None)


@strawberry.type
class Query:
    leaves: list[Leaf]
    gaps: list[Leaf | None]
    dear: list[Leaf] = strawberry.field(directives=[list_size_directive(3), cost_directive(4)])
    number: int = strawberry.field(directives=[cost_directive(2)])
    either: Annotated[Leaf | Other, strawberry.union("Either")]
    sliced: list[Leaf] = strawberry.field(resolver=sliced, directives=[sliced_by("first", "last")])
    by_keys: list[Leaf] = strawberry.field(resolver=by_keys, directives=[sliced_by("keys", "size")])


SMALL = GraphSchema(query=Query, types=[Other]).core_schema


def parsed(text: str) -> tuple[DocumentNode, OperationDefinitionNode]:
    document = parse(text)
    return document, next(each for each in document.definitions if isinstance(each, OperationDefinitionNode))


def cost(text: str, schema: GraphQLSchema = SMALL) -> OperationCost:
    document, operation = parsed(text)
    assert validate(schema, document) == []
    return OperationCost(schema, document, operation)


def page(size: int) -> dict[str, Any]:
    node = {"amount": {"amount": "1.00"}}
    return {"account": {"operations": {"edges": [{"node": node} for _ in range(size)]}}}


class TestEstimate:
    @pytest.mark.parametrize(
        ("text", "estimated"),
        [
            ("{ __typename }", 0),
            ("{ number }", 2),
            ("{ leaves { name } }", 10),
            ("{ dear { name } }", 12),
            ("{ a: number b: number number }", 6),
            ("{ ...F ...F } fragment F on Query { number }", 4),
            ("{ either { __typename ... on Leaf { name } ... on Other { leaf { name } } } }", 2),
            ("{ sliced(first: 4) { name } }", 4),
            ("{ sliced(last: 0) { name } }", 0),
            ("{ sliced(last: -5) { name } }", 0),
            ('{ byKeys(keys: ["a", "b"], size: null) { name } }', 2),
            ("{ number @skip(if: true) leaves @include(if: false) { name } }", 0),
            ("{ number @skip(if: false) ... @include(if: true) { number } }", 4),
        ],
    )
    def test_estimate_is_the_sum_of_the_selected_fields(self, text: str, estimated: int) -> None:
        assert cost(text).estimate(None) == estimated

    @pytest.mark.parametrize(
        ("variables", "estimated"),
        [({"n": 4}, 4), ({}, 6), ({"n": 1_000.0}, 1_000), ({"n": 2**31 - 1}, 2**31 - 1)],
    )
    def test_list_size_comes_from_variables_and_their_defaults(self, variables: dict[str, Any], estimated: int) -> None:
        assert cost("query($n: Int = 6) { sliced(first: $n) { name } }").estimate(variables) == estimated

    def test_list_size_is_the_number_of_keys(self) -> None:
        operation = cost("query($keys: [String!]!) { byKeys(keys: $keys, size: null) { name } }")
        assert operation.estimate({"keys": ["a", "b", "c"]}) == 3

    def test_field_that_a_variable_skips_costs_nothing(self) -> None:
        either = cost("query($x: Boolean!) { number @include(if: $x) ... @skip(if: $x) { leaves { name } } }")
        assert (either.estimate({"x": True}), either.estimate({"x": False})) == (2, 10)

    def test_estimate_is_at_most_a_32_bit_integer(self) -> None:
        huge = cost("query($n: Int) { " + " ".join(f"a{each}: sliced(first: $n) {{ name }}" for each in range(9)) + "}")
        assert huge.estimate({"n": 2**31 - 1}) == 2**31 - 1

    def test_size_with_thousands_of_digits_is_the_maximum(self) -> None:
        by_default = OperationCost(SMALL, *parsed(f"query($n: ID = {'1' * 5_000}) {{ sliced(first: $n) {{ name }} }}"))
        assert by_default.estimate(None) == 2**31 - 1

    def test_estimate_of_a_page_depends_on_its_size(self) -> None:
        query = f'{{ account(id: "{ACCOUNT}") {{ operations(SIZE) {{ {PAGE} }} }} }}'
        sizes = {"first: 1000": 1_000, "last: 2": 2, "filter: {}": 50, "first: null": 50}
        for argument, size in sizes.items():
            assert cost(query.replace("SIZE", argument), GRAPH).estimate(None) == 1 + 5 + 3 * size

    def test_mutation_has_a_base_cost(self) -> None:
        text = """mutation($input: TransferMoneyInput!) {
            transferMoney(input: $input) { ... on TransferMoneySuccess { balance { amount } } ... on Error { code } }
        }"""
        assert cost(text, GRAPH).estimate({"input": {}}) == 10 + 1 + 1


class TestActual:
    @pytest.mark.parametrize(
        ("text", "data", "actual"),
        [
            ("{ number }", {"number": 3}, 2),
            ("{ leaves { name } }", {"leaves": [{"name": None}] * 3}, 3),
            ("{ gaps { name } }", {"gaps": [{"name": None}, None]}, 1),
            ("{ dear { name } }", {"dear": []}, 0),
            ("{ a: dear { name } }", {"a": [{"name": None}]}, 4),
            ("{ either { ... on Other { leaf { name } } } }", {"either": {}}, 1),
            ("{ either { ... on Other { leaf { name } } } }", {"either": {"leaf": None}}, 1),
            ("{ either { ... on Other { leaf { name } } } }", {"either": {"leaf": {"name": None}}}, 2),
            ("query($x: Boolean!) { number @skip(if: $x) }", {}, 0),
            ("{ number }", None, 0),
        ],
    )
    def test_actual_cost_is_the_sum_of_the_fields_in_the_response(
        self, text: str, data: dict[str, Any] | None, actual: int
    ) -> None:
        assert cost(text).measure(data) == actual

    def test_actual_cost_of_a_page_depends_on_its_items(self) -> None:
        query = cost(f'{{ account(id: "{ACCOUNT}") {{ operations {{ {PAGE} }} }} }}', GRAPH)
        assert query.measure(page(size=7)) == 1 + 5 + 3 * 7
        assert query.measure({"account": {"operations": None}}) == 1
        assert query.measure({"account": None}) == 0

    def test_items_of_equal_cost_are_counted_without_being_read(self) -> None:
        class Unread(list[Any]):
            def __iter__(self) -> NoReturn:
                raise AssertionError("the items were read")

        query = cost(f'{{ account(id: "{ACCOUNT}") {{ operations {{ {PAGE} }} }} }}', GRAPH)
        data = page(size=1_000)
        data["account"]["operations"]["edges"] = Unread(data["account"]["operations"]["edges"])
        assert query.measure(data) == 3_006


class TestDirectives:
    def test_every_list_of_objects_has_a_list_size(self) -> None:
        assert set(unsized_lists(GRAPH)) == set()

    @pytest.mark.parametrize("asked", [1, 200])
    def test_cost_of_entities_is_proportional_to_the_representations(self, asked: int) -> None:
        text = "query($them: [_Any!]!) { _entities(representations: $them) { ... on Account { balance { amount } } } }"
        schema = build_merged_schema(federation=True).core_schema
        assert cost(text, schema).estimate({"them": [{}] * asked}) == asked * 2  # the account, and its money

    def test_no_field_is_a_list_of_lists(self) -> None:
        for _, field in fields(GRAPH):
            kind = get_nullable_type(field.type)
            assert not (is_list_type(kind) and is_list_type(get_nullable_type(kind.of_type)))

    def test_every_connection_is_sized_by_its_page(self) -> None:
        connections = {name for name, field in fields(GRAPH) if get_named_type(field.type).name.endswith("Connection")}
        assert connections == {
            name for name, field in fields(GRAPH) if any(each in (PAGED, PAGED_FORWARD) for each in directives(field))
        }
        assert connections == {"Account.operations", "Account.topUps", "User.accounts", "Query.accounts"}

    def test_fields_that_read_many_rows_have_a_cost_directive(self) -> None:
        priced = {name for name, field in fields(GRAPH) if any(isinstance(x, CostDirective) for x in directives(field))}
        assert priced == {
            "Account.operations",
            "Account.topUps",
            "Account.statistics",
            "User.accounts",
            "Query.accounts",
        }


def fields(schema: GraphQLSchema) -> Iterator[tuple[str, Any]]:
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__"):
            for name, field in kind.fields.items():
                yield f"{kind.name}.{name}", field


def directives(field: Any) -> list[Any]:
    return list(field.extensions["strawberry-definition"].directives)


def unsized_lists(schema: GraphQLSchema) -> Iterator[str]:
    sized_by_parent = {
        f"{get_named_type(field.type).name}.{name}"
        for _, field in fields(schema)
        for directive in directives(field)
        if isinstance(directive, ListSize)
        for name in directive.sized_fields or ()
    }
    for name, field in fields(schema):
        is_list = is_list_type(get_nullable_type(field.type)) and is_composite_type(get_named_type(field.type))
        is_sized = name in sized_by_parent or any(isinstance(each, ListSize) for each in directives(field))
        if is_list and not is_sized:
            yield name
