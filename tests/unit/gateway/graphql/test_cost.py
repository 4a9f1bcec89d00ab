"""Estimated and actual cost of operations, by the directives of the fields."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import orjson
import pytest
import strawberry
from graphql import (
    DocumentNode,
    GraphQLObjectType,
    GraphQLSchema,
    execute_sync,
    get_introspection_query,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    is_leaf_type,
    is_list_type,
    parse,
    validate,
)
from graphql.language import OperationDefinitionNode
from strawberry.federation.schema_directives import Cost as CostDirective
from strawberry.federation.schema_directives import ListSize

from gateway.graphql.execution.schemas import build_merged_schema, build_subgraph_schema
from gateway.graphql.execution.strawberry_internals import GraphSchema, strawberry_definition
from gateway.graphql.federation.registry import SUBGRAPHS
from gateway.graphql.protection.cost import OperationCost
from gateway.graphql.protection.limits import Limits
from gateway.graphql.protection.prices import (
    ARGUMENT_BYTES_PER_UNIT,
    FREE_ARGUMENT_BYTES,
    RESOLVER_COST,
    ROW_COST,
    default_cost,
)
from subgraphs.analytics.graph import types
from subgraphs.analytics.service.domain import statistics
from subgraphs.bank.graph.types import BALANCE_AT_COST, CHANGE_COST
from tests.unit.gateway.graphql.example_operations import example_operations
from wallet.graph import (
    BATCH_ITEM_COST,
    METADATA_COST,
    MUTATION_COST,
    PAGE_COST,
    PAGED,
    PAGED_FORWARD,
    cost_directive,
    list_size_directive,
)

GRAPH = build_merged_schema().core_schema
ACCOUNT = "123e4567-e89b-12d3-a456-426614174000"
PAGE = "edges { node { amount { amount } } }"
OPERATION = """id type direction amount { amount currency } balanceAfter { amount currency } counterparty { id }
occurredAt cursor"""
STATISTICS_OF_AN_HOUR = (
    'statistics(from: "2026-01-01T00:00:00Z", to: "2026-01-01T01:00:00Z", granularity: HOUR) { cursor }'
)
STATISTICS_COST = types.STATISTICS_COST
FILTERED = "query($t: [OperationType!]) { accounts(first: 9) { edges { node { FIELDS } } } }"


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
    tags: list[str]
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
            ("{ __typename a: __typename }", 2),
            ("{ number }", 2),
            ("{ leaves { name } }", 10 * 2),
            ("{ leaves { a: name b: name __typename } }", 10 * 4),
            ("{ dear { name } }", 3 * (4 + 1)),
            ("{ a: number b: number number }", 6),
            ("{ ...F ...F } fragment F on Query { number }", 4),
            ("{ either { __typename ... on Leaf { name } ... on Other { leaf { name } } } }", 1 + 1 + 1 + 2),
            ("{ sliced(first: 4) { name } }", 4 * 11),
            ("{ sliced(last: 0) { name } }", 0),
            ("{ sliced(last: -5) { name } }", 0),
            ('{ byKeys(keys: ["a", "b"], size: null) { name } }', 2 * 11),
            ("{ tags }", 10),
            ("{ " + "n" * 96 + ": number }", 2 + 3),
            ("{ leaves { " + "n" * 64 + ": name } }", 10 * (1 + 1 + 2)),
            ("{ " + "t" * 32 + ": __typename }", 1 + 1),
            ("{ number @skip(if: true) leaves @include(if: false) { name } }", 0),
            ("{ number @skip(if: false) ... @include(if: true) { number } }", 4),
        ],
    )
    def test_estimate_is_the_sum_of_the_selected_fields(self, text: str, estimated: int) -> None:
        assert cost(text).estimate(None) == estimated

    @pytest.mark.parametrize(
        ("variables", "estimated"),
        [
            ({"n": 4}, 4 * 11),
            ({}, 6 * 11),
            ({"n": None}, 10 * 11),
            ({"n": 1_000.0}, 1_000 * 11),
            ({"n": 2**31 - 1}, 2**31 - 1),
        ],
    )
    def test_list_size_comes_from_variables_and_their_defaults(self, variables: dict[str, Any], estimated: int) -> None:
        assert cost("query($n: Int = 6) { sliced(first: $n) { name } }").estimate(variables) == estimated

    def test_list_size_is_the_number_of_keys(self) -> None:
        operation = cost("query($keys: [String!]!) { byKeys(keys: $keys, size: null) { name } }")
        assert operation.estimate({"keys": ["a", "b", "c"]}) == 3 * 11

    def test_list_size_is_the_default_of_the_argument_if_its_variable_has_no_value(self) -> None:
        operation = cost("query($size: Int) { byKeys(size: $size) { name } }")
        assert (operation.estimate({}), operation.estimate({"size": 2})) == (7 * 11, 2 * 11)

    @pytest.mark.parametrize(
        ("until", "granularity", "buckets"),
        [
            ("2026-01-02T00:00:00Z", "HOUR", 24 + 2),
            ("2027-01-01T00:00:00Z", "MONTH", 13 + 2),
            ("2027-01-01T00:00:00+01:00", "DAY", 364 + 2),
            ("2026-01-01T00:00:00.001Z", "WEEK", 2),
            ("2028-09-27T00:00:00Z", "DAY", 1_000),
            ("2028-09-29T00:00:00Z", "DAY", 1),
            ("2025-01-01T00:00:00Z", "DAY", 1),
            ("2026-01-02T00:00:00", "DAY", 1),
            ("tomorrow", "DAY", 1_000),
            (5, "DAY", 1_000),
            ("2026-01-02T00:00:00Z", "CENTURY", 1_000),
            (None, None, 1_000),
        ],
    )
    def test_buckets_of_statistics_are_as_many_as_the_range_can_have(
        self, until: Any, granularity: Any, buckets: int
    ) -> None:
        text = """query($to: DateTime!, $by: Granularity!) {
            account(id: "1") { statistics(from: "2026-01-01T00:00:00Z", to: $to, granularity: $by) { buckets { end } } }
        }"""
        assert cost(text, GRAPH).estimate({"to": until, "by": granularity}) == 10 + STATISTICS_COST + buckets * (
            2 + ROW_COST
        )

    def test_literal_range_of_statistics_determines_the_number_of_buckets(self) -> None:
        text = """{ account(id: "1") { statistics(
            from: "2026-01-01T00:00:00Z", to: "2026-01-31T00:00:00Z", granularity: DAY
        ) { buckets { end } } } }"""
        assert cost(text, GRAPH).estimate(None) == 10 + STATISTICS_COST + (30 + 2) * (2 + ROW_COST)

    def test_maximum_number_of_buckets_is_the_same_in_graph_and_service(self) -> None:
        assert types.MAX_BUCKETS == statistics.MAX_BUCKETS

    def test_field_that_a_variable_skips_costs_nothing(self) -> None:
        either = cost("query($x: Boolean!) { number @include(if: $x) ... @skip(if: $x) { leaves { name } } }")
        assert (either.estimate({"x": True}), either.estimate({"x": False})) == (2, 20)

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
            assert cost(query.replace("SIZE", argument), GRAPH).estimate(None) == 10 + PAGE_COST + (4 + ROW_COST) * size

    @pytest.mark.parametrize(
        "selected", ["__typename", "pageInfo { endCursor }", "edges @skip(if: true) { cursor } __typename"]
    )
    @pytest.mark.parametrize(
        "parent", ["account(id: 1) { operations", "account(id: 1) { topUps", "me { accounts", "{ accounts"]
    )
    def test_rows_of_a_page_are_charged_if_its_items_are_not_selected(self, parent: str, selected: str) -> None:
        text = f"query($n: Int) {{ {parent}(first: $n) {{ {selected} }} }}".replace("{ { ", "{ ")
        text += "}" * (text.count("{") - text.count("}"))
        operation = cost(text, GRAPH)
        for size in (1, 50, 1_000):
            assert operation.estimate({"n": size}) >= PAGE_COST + ROW_COST * size
        assert operation.estimate({}) == operation.estimate({"n": 50})

    def test_rows_of_statistics_are_charged_if_the_buckets_are_not_selected(self) -> None:
        text = """{ account(id: "1") { statistics(
            from: "2026-01-01T00:00:00Z", to: "2026-02-11T00:00:00Z", granularity: HOUR
        ) { isComplete } } }"""
        assert cost(text, GRAPH).estimate(None) >= STATISTICS_COST + ROW_COST * 984

    def test_event_of_a_subscription_has_a_base_cost(self) -> None:
        assert (
            cost('subscription { operationAdded(accountId: "1") { __typename } }', GRAPH).estimate(None) == 60 + 10 + 1
        )

    @pytest.mark.parametrize("count", [1, 20])
    def test_each_mutation_of_an_operation_is_charged(self, count: int) -> None:
        fields = " ".join(f"a{number}: transferMoney(input: $input) {{ __typename }}" for number in range(count))
        text = f"mutation($input: TransferMoneyInput!) {{ {fields} }}"
        assert cost(text, GRAPH).estimate({"input": {}}) == count * (MUTATION_COST + 1)

    def test_cost_of_a_mutation_includes_its_result(self) -> None:
        text = """mutation($input: TransferMoneyInput!) {
            transferMoney(input: $input) { ... on TransferMoneySuccess { balance { amount } } ... on Error { code } }
        }"""
        assert cost(text, GRAPH).estimate({"input": {}}) == MUTATION_COST + (1 + 1) + 1


class TestArguments:
    """The cost of arguments depends on their size, and counts at each use."""

    @pytest.mark.parametrize("uses", [1, 24])
    def test_large_variable_costs_at_each_use_for_each_parent(self, uses: int) -> None:
        fields = " ".join(
            f"a{number}: operations(first: 1, filter: {{ types: $t }}) {{ __typename }}" for number in range(uses)
        )
        operation = cost(FILTERED.replace("FIELDS", fields), GRAPH)
        small, large = (operation.estimate({"t": ["TOP_UP"] * size}) for size in (2, 7_000))
        assert large - small >= 9 * uses * (60_000 - FREE_ARGUMENT_BYTES) // ARGUMENT_BYTES_PER_UNIT
        assert small == operation.estimate({})

    def test_large_variable_with_several_uses_is_above_the_limit(self) -> None:
        uses = " ".join(f"a{n}: operations(first: 1, filter: {{ types: $t }}) {{ __typename }}" for n in range(4))
        operation = cost(FILTERED.replace("FIELDS", uses), GRAPH)
        assert operation.estimate({"t": ["TOP_UP"] * 7_000}) > Limits.cost
        assert operation.estimate({"t": ["TOP_UP"]}) < Limits.cost

    @pytest.mark.parametrize(
        ("definition", "argument", "variables"),
        [
            ("", '"' + "9" * 4_096 + '"', {}),
            ("($a: String)", "$a", {"a": "9" * 4_096}),
            ('($a: String = "' + "9" * 4_096 + '")', "$a", {}),
        ],
        ids=["literal", "variable", "default"],
    )
    def test_long_text_costs_the_same_wherever_it_is_written(
        self, definition: str, argument: str, variables: dict[str, Any]
    ) -> None:
        text = f'query{definition} {{ account(id: "1") {{ operations(first: 1, after: AFTER) {{ __typename }} }} }}'
        text = text.replace("AFTER", argument)
        short = cost('{ account(id: "1") { operations(first: 1) { __typename } } }', GRAPH).estimate({})
        expected = (4_096 - FREE_ARGUMENT_BYTES) // ARGUMENT_BYTES_PER_UNIT
        assert expected <= cost(text, GRAPH).estimate(variables) - short <= expected + 1

    def test_default_of_a_variable_with_a_value_costs_nothing(self) -> None:
        default = ", ".join(["TOP_UP"] * 1_000)
        text = f"query($t: [OperationType!] = [{default}]) {{ account(id: 1) {{ operations(filter: {{ types: $t }}) {{"
        operation = cost(text + " __typename } } }", GRAPH)
        assert operation.estimate({}) > operation.estimate({"t": ["TOP_UP"]})

    def test_uses_of_a_variable_in_one_field_are_added(self) -> None:
        used = cost(f"query($a: String!) {{ byKeys(keys: [{'$a, ' * 50}]) {{ name }} }}")
        assert (
            used.estimate({"a": "x" * 900}) - used.estimate({"a": "x"})
            >= (50 * 900 - FREE_ARGUMENT_BYTES) // ARGUMENT_BYTES_PER_UNIT
        )

    @pytest.mark.parametrize("literal", [0, 500, 1_000, 1_100])
    @pytest.mark.parametrize("variable", [10, 500, 1_000])
    def test_literal_and_variable_of_one_field_are_added(self, literal: int, variable: int) -> None:
        text = f'query($a: String!) {{ byKeys(keys: ["{"x" * literal}", $a], size: 1) {{ name }} }}'
        size = literal + variable
        cost_of_arguments = cost(text).estimate({"a": "x" * variable}) - 2 * 11
        expected = max(0, size - FREE_ARGUMENT_BYTES) // ARGUMENT_BYTES_PER_UNIT
        assert expected <= cost_of_arguments <= expected + 1

    def test_argument_of_a_list_field_is_charged_once_for_all_items(self) -> None:
        operation = cost("query($k: [String!]) { byKeys(keys: $k, size: 3) { name } }")
        long = operation.estimate({"k": ["x" * 2_048] * 2})
        assert long - 3 * 11 == pytest.approx((2 * 2_048 - FREE_ARGUMENT_BYTES) // ARGUMENT_BYTES_PER_UNIT, abs=2)

    def test_arguments_of_a_skipped_field_cost_nothing(self) -> None:
        text = """query($x: Boolean!, $t: [OperationType!]) {
            account(id: "1") { operations(first: 1, filter: { types: $t }) @include(if: $x) { __typename } }
        }"""
        assert cost(text, GRAPH).estimate({"x": False, "t": ["TOP_UP"] * 7_000}) == 10

    def test_unused_variable_costs_nothing(self) -> None:
        text = "query($i: ID!) { account(id: $i) { balance { amount } } }"
        assert cost(text, GRAPH).estimate({"i": ACCOUNT, "unused": "x" * 60_000}) == 21

    def test_variable_that_is_nested_too_deeply_is_above_every_limit(self) -> None:
        nested: Any = "x"
        for _ in range(300):
            nested = [nested]
        operation = cost('query($a: String) { account(id: "1") { operations(after: $a) { __typename } } }', GRAPH)
        assert operation.estimate({"a": nested}) > Limits.cost


INTROSPECTIONS = {
    "standard": get_introspection_query(),
    "all options": get_introspection_query(
        specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
    ),
    "types of fields": "{ __schema { ...F } s: __schema { ...F } } "
    "fragment F on __Schema { types { fields { type { name } } } }",
    "arguments": "{ __schema { types { fields { name args { name description } } } } }",
    "possible types": "{ __schema { types { possibleTypes { fields { name } } interfaces { fields { name } } } } }",
    "nested fields": "{ __schema { types { fields { type { fields { args { name } } } } } } }",
    "wrappers": "{ __schema { types { fields { type { ofType { ofType { ofType { name } } } } } } } }",
    "inputs": "{ __schema { types { inputFields { type { name } defaultValue } enumValues { name } } } }",
    "directives": "{ __schema { directives { name args { name type { name } } } } }",
    "one type": '{ __type(name: "Account") { fields { name args { name } } } }',
}


class TestIntrospection:
    @pytest.mark.parametrize("text", INTROSPECTIONS.values(), ids=INTROSPECTIONS)
    def test_estimate_is_at_least_95_percent_of_the_fields_in_the_response(self, text: str) -> None:
        result = execute_sync(GRAPH, parse(text))
        assert result.errors is None
        assert cost(text, GRAPH).estimate(None) >= 0.95 * count_fields(result.data)

    @pytest.mark.parametrize(
        "text",
        [
            *INTROSPECTIONS.values(),
            f'{{ __type(name: "__Type") {{ {" ".join(f"a{number}: description" for number in range(48))} }} }}',
            f"{{ __schema {{ types {{ {' '.join(f'a{number}: description' for number in range(48))} }} }} }}",
        ],
    )
    def test_response_has_at_most_64_bytes_for_each_unit_of_cost(self, text: str) -> None:
        result = execute_sync(GRAPH, parse(text))
        assert len(json.dumps(result.data, separators=(",", ":"))) <= 64 * cost(text, GRAPH).estimate(None)

    @pytest.mark.parametrize("text", list(INTROSPECTIONS.values())[:2])
    @pytest.mark.parametrize("federation", [False, True])
    def test_introspection_of_tools_is_below_the_limit_without_a_token(self, text: str, federation: bool) -> None:
        graph = build_merged_schema(federation=federation).core_schema
        assert cost(text, graph).estimate(None) <= Limits().new_budget(is_anonymous=True).cost

    def test_aliases_of_introspection_are_above_the_limit_without_a_token(self) -> None:
        limit = Limits().new_budget(is_anonymous=True).cost
        fragment = "fragment F on __Schema { types { fields { type { name } } } }"
        aliases = " ".join(f"s{number}: __schema {{ ...F }}" for number in range(20))
        assert cost(f"{{ {aliases} }} {fragment}", GRAPH).estimate(None) > limit
        long = " ".join(f"{'d' * 95}{number}: name" for number in range(48))
        assert cost(f"{{ __schema {{ types {{ fields {{ {long} }} }} }} }}", GRAPH).estimate(None) > Limits.cost

    def test_sdl_is_charged_by_its_length_for_each_alias(self) -> None:
        schema = build_merged_schema(federation=True)
        length = len(schema.core_schema.type_map["_Service"].fields["sdl"].resolve(None, None))  # type: ignore[attr-defined]
        aliases = " ".join(f"a{number}: sdl" for number in range(48))
        assert cost("{ _service { sdl } }", schema.core_schema).estimate(None) == 10 + length // 8
        assert cost(f"{{ _service {{ {aliases} }} }}", schema.core_schema).estimate(None) == 10 + 48 * (length // 8)
        assert 48 * (length // 8) > Limits.cost


def count_fields(data: Any) -> int:
    if isinstance(data, dict):
        return len(data) + sum(count_fields(each) for each in data.values())
    return sum(count_fields(each) for each in data) if isinstance(data, list) else 0


class TestActual:
    @pytest.mark.parametrize(
        ("text", "data", "actual"),
        [
            ("{ number }", {"number": 3}, 2),
            ("{ leaves { name } }", {"leaves": [{"name": None}, {"name": "x"}]}, 2 + 1),
            ("{ gaps { name } }", {"gaps": [{"name": None}, None]}, 1),
            ("{ dear { name } }", {"dear": []}, 0),
            ("{ a: dear { name } }", {"a": [{"name": "x"}]}, 4 + 1),
            ("{ either { ... on Other { leaf { name } } } }", {"either": {}}, 1),
            ("{ either { ... on Other { leaf { name } } } }", {"either": {"leaf": None}}, 1),
            ("{ either { ... on Other { leaf { name } } } }", {"either": {"leaf": {"name": "x"}}}, 3),
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
        assert query.measure(page(size=7)) == 10 + PAGE_COST + (4 + ROW_COST) * 7
        assert query.measure({"account": {"operations": None}}) == 10
        assert query.measure({"account": None}) == 0

    def test_items_of_equal_cost_are_counted_without_being_read(self) -> None:
        class Unread(list[Any]):
            def __iter__(self) -> NoReturn:
                raise AssertionError("the items were read")

        query = cost(f'{{ account(id: "{ACCOUNT}") {{ operations {{ {PAGE} }} }} }}', GRAPH)
        data = page(size=1_000)
        data["account"]["operations"]["edges"] = Unread(data["account"]["operations"]["edges"])
        assert query.measure(data) == 10 + PAGE_COST + (4 + ROW_COST) * 1_000


class TestExamples:
    @pytest.mark.slow
    def test_every_operation_in_the_repository_is_below_the_default_limit(self) -> None:
        month = {"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z", "granularity": "DAY", "first": 50}
        graph = build_merged_schema(federation=True).core_schema
        costs = {
            f"{place} ({operation.name})": operation.estimate(month)
            for place, document in example_operations()
            if not validate(graph, document)
            for operation in (
                OperationCost(graph, document, each)
                for each in document.definitions
                if isinstance(each, OperationDefinitionNode)
            )
        }
        assert len(costs) > 150
        too_expensive = {place for place, each in costs.items() if each > Limits.cost}
        assert {place for place in too_expensive if "first: 10000" not in place} == set()


class TestDirectives:
    def test_every_list_of_objects_has_a_list_size(self) -> None:
        assert set(unsized_lists(GRAPH)) == set()

    @pytest.mark.parametrize("count", [1, 200])
    def test_cost_of_entities_is_proportional_to_the_representations(self, count: int) -> None:
        text = "query($them: [_Any!]!) { _entities(representations: $them) { ... on Account { balance { amount } } } }"
        schema = build_merged_schema(federation=True).core_schema
        assert cost(text, schema).estimate({"them": [{}] * count}) == count * (
            10 + 10 + 1
        )  # the account, its money, and the amount

    def test_no_field_is_a_list_of_lists(self) -> None:
        for _, field in fields(GRAPH):
            kind = get_nullable_type(field.type)
            assert not (is_list_type(kind) and is_list_type(get_nullable_type(kind.of_type)))

    def test_every_connection_is_sized_by_its_page(self) -> None:
        connections = {name for name, field in fields(GRAPH) if get_named_type(field.type).name.endswith("Connection")}
        assert connections == {
            name for name, field in fields(GRAPH) if any(each in (PAGED, PAGED_FORWARD) for each in directives(field))
        }
        assert connections == {
            "Account.operations",
            "Account.topUps",
            "Account.transfers",
            "User.accounts",
            "Query.accounts",
        }

    def test_every_mutation_is_priced(self) -> None:
        assert GRAPH.mutation_type is not None
        weights = {
            name: each.weight
            for name, field in GRAPH.mutation_type.fields.items()
            for each in directives(field)
            if is_cost(each)
        }
        expected = dict.fromkeys(GRAPH.mutation_type.fields, MUTATION_COST)
        assert expected | {"transferMoneyBatch": BATCH_ITEM_COST} == weights

    def test_batch_costs_as_much_as_its_transfers(self) -> None:
        text = "mutation($them: [TransferMoneyInput!]!) { transferMoneyBatch(inputs: $them) { replayed } }"
        transfer = {"senderId": ACCOUNT, "recipientId": ACCOUNT, "amount": "1.00", "idempotencyKey": "k"}
        for count in (1, 20, 1_000):
            them = [transfer | {"idempotencyKey": f"k{number:04}"} for number in range(count)]
            arguments = max(0, len(orjson.dumps(them)) - FREE_ARGUMENT_BYTES) // ARGUMENT_BYTES_PER_UNIT
            estimated = cost(text, GRAPH).estimate({"them": them})
            assert estimated == count * (BATCH_ITEM_COST + 1) + arguments
            assert estimated <= Limits.cost

    def test_many_small_pages_in_one_operation_are_above_the_limit(self) -> None:
        for page in ("operations(first: 1) { __typename }", "topUps(first: 1) { __typename }", STATISTICS_OF_AN_HOUR):
            pages = " ".join(f"a{number}: {page}" for number in range(30))
            text = f"{{ accounts(first: 9) {{ edges {{ node {{ {pages} }} }} }} }}"
            assert cost(text, GRAPH).estimate({}) > 4 * Limits.cost

    @pytest.mark.parametrize(
        "text",
        [
            "{ accounts(first: 20) { edges { node { operations(first: 5) { edges { node { id type cursor } } } } } } }",
            f'{{ account(id: "1") {{ operations(first: 1000) {{ edges {{ cursor node {{ {OPERATION} }} }} }} }} }}',
        ],
    )
    def test_pages_of_an_ordinary_client_are_below_the_limit(self, text: str) -> None:
        assert cost(text, GRAPH).estimate({}) <= Limits.cost

    def test_pages_and_mutations_cost_more_than_a_field_with_a_resolver(self) -> None:
        weights = {name: each.weight for name, field in fields(GRAPH) for each in directives(field) if is_cost(each)}
        assert {name: weight for name, weight in weights.items() if weight > RESOLVER_COST} == {
            "Account.operations": PAGE_COST,
            "Account.topUps": PAGE_COST,
            "Account.statistics": STATISTICS_COST,
            "Account.transfers": PAGE_COST,
            "Account.balanceAt": BALANCE_AT_COST,
            "Account.changes": CHANGE_COST,
            "Operation.metadata": METADATA_COST,
            "Transfer.metadata": METADATA_COST,
            "User.accounts": PAGE_COST,
            "Query.accounts": PAGE_COST,
            "Query.node": 4 * RESOLVER_COST,
            "Query.nodes": 4 * RESOLVER_COST,
            "Mutation.transferMoney": MUTATION_COST,
            "Mutation.transferMoneyBatch": BATCH_ITEM_COST,
            "Mutation.openAccount": MUTATION_COST,
            "Mutation.closeAccount": MUTATION_COST,
            "Mutation.freezeAccount": MUTATION_COST,
            "Mutation.thawAccount": MUTATION_COST,
            "Mutation.setAccountFloor": MUTATION_COST,
            "Mutation.topUpAccount": MUTATION_COST,
        }

    @pytest.mark.parametrize("name", SUBGRAPHS)
    def test_sdl_has_the_cost_of_every_field_that_differs_from_the_default_of_the_directive(self, name: str) -> None:
        interfaces = {"message", "code"}  # `@cost` is not allowed on the fields of an interface
        for place, field in fields(build_subgraph_schema(name).core_schema):
            is_priced = any(is_cost(each) for each in directives(field))
            is_leaf = is_leaf_type(get_named_type(field.type))
            is_own = not place.startswith("_") and place.rpartition(".")[2] not in interfaces
            differs = is_leaf or default_cost(strawberry_definition(field)) != 1
            assert is_priced or not (is_own and differs), place


def fields(schema: GraphQLSchema) -> Iterator[tuple[str, Any]]:
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__"):
            for name, field in kind.fields.items():
                yield f"{kind.name}.{name}", field


def directives(field: Any) -> list[Any]:
    return list(getattr(strawberry_definition(field), "directives", ()))


def is_cost(directive: Any) -> bool:
    return isinstance(directive, CostDirective)


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
