"""The private parts of Strawberry that the gateway uses exist and have an effect."""

import inspect
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytest
import strawberry
from graphql import GraphQLError, GraphQLField, GraphQLInputObjectType, GraphQLObjectType, parse
from graphql.execution import Executor
from strawberry.codegen import QueryCodegen
from strawberry.codegen.plugins.python import PythonPlugin
from strawberry.exceptions import DuplicatedTypeName
from strawberry.extensions import FieldExtension
from strawberry.resolvers import is_default_resolver
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.name_converter import NameConverter
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext, validate_document
from strawberry.types import ExecutionContext
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.graphql import OperationType

from gateway.errors import OperationRefused
from gateway.graphql.execution.compiled import CompiledOperation, OperationCompiler, SourceResolver
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.execution.strawberry_internals import (
    STRAWBERRY_RULES,
    GraphSchema,
    PreparingRunner,
    SchemaExtensionsRunner,
    check_operation_type,
    requested_operation_name,
    schema_config,
    strawberry_definition,
)


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
class Shout:
    message: str


class Refusal(strawberry.ExceptionHandler):  # type: ignore[type-arg]
    """Converts an error to data."""

    exception_type = ValueError
    error_type = Shout

    def handle(self, exception: Exception, *, field: Any, info: Any) -> Shout:
        return Shout(message=str(exception))


class Shouting(FieldExtension):
    def resolve(self, next_: Any, source: Any, info: Any, **arguments: Any) -> Any:
        return str(next_(source, info, **arguments)).upper()


@strawberry.type
class Words:
    text: str

    @strawberry.field
    def first(self) -> str:
        return self.text.split()[0]

    @strawberry.field
    async def last(self) -> str:
        return self.text.split()[-1]

    @strawberry.field
    def at(self, index: int) -> str:
        return self.text.split()[index]

    @strawberry.field
    def path(self, info: strawberry.Info) -> str:
        return "/".join(map(str, info.path.as_list()))

    @strawberry.field(extensions=[Shouting()])  # type: ignore[untyped-decorator]
    def loud(self) -> str:
        return self.text

    @strawberry.field
    def refused(self) -> Annotated[Thing | Shout, strawberry.union("Refused")]:
        raise ValueError(self.text)


@strawberry.type
class Query:
    @strawberry.field
    def words(self) -> Words:
        return Words(text="one two")

    @strawberry.field
    def plain(self, info: strawberry.Info[list[object], None], value: Plain) -> None:
        info.context.append(value)

    @strawberry.field
    def both(self, info: strawberry.Info[list[object], None], value: Both) -> None:
        info.context.append(value)

    @strawberry.field
    def things(self) -> list[Thing | None]:
        return [
            Thing(number=1, text="a", late=datetime(2026, 11, 1, tzinfo=UTC)),
            Thing(number=0),
            Thing(number=None),  # type: ignore[arg-type]  # a defect
            Thing(number="many"),  # type: ignore[arg-type]
        ]


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def number(self) -> AsyncIterator[int]:
        yield 1

    @strawberry.subscription
    async def thing(self) -> AsyncIterator[Thing]:
        yield Thing(number=1)


SCHEMA = GraphSchema(query=Query, subscription=Subscription, exception_handlers=[Refusal()])


def execution_context(schema: strawberry.Schema, operation_name: str | None = None) -> ExecutionContext:
    return ExecutionContext(
        query="query A { things { number } }",
        schema=schema,
        allowed_operations=(),
        provided_operation_name=operation_name,
    )


class TestSignatures:
    @pytest.mark.parametrize(
        ("method", "parameters"),
        [
            (
                strawberry.Schema._execute_operation,
                [
                    "self",
                    "execution_context",
                    "extensions_runner",
                    "middleware_manager",
                    "execute_function",
                    "custom_context_kwargs",
                ],
            ),
            (
                strawberry.Schema._stream,
                [
                    "self",
                    "execution_context",
                    "extensions_runner",
                    "middleware_manager",
                    "execution_context_class",
                    "operation_extensions",
                ],
            ),
            (strawberry.Schema._prepare_operation_async, ["self", "context", "extensions_runner"]),
            (
                strawberry.Schema._collect_schema_directives,
                ["self", "explicit_directive_types", "graphql_types"],
            ),
            (strawberry.Schema._warn_for_federation_directives, ["self"]),
            (strawberry.Schema.create_extensions_runner, ["self", "execution_context", "extensions"]),
            (strawberry.Schema.process_errors, ["self", "errors", "execution_context"]),
            (SchemaExtensionsRunner.operation, ["self"]),
            (SchemaExtensionsRunner.executing, ["self"]),
            (SchemaExtensionsRunner.on_stream_result, ["self", "result"]),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_method_has_the_expected_parameters(self, method: Callable[..., Any], parameters: list[str]) -> None:
        assert list(inspect.signature(method).parameters) == parameters

    def test_rules_are_the_ones_that_strawberry_adds(self) -> None:
        names = re.findall(r"^ +(\w+Rule),$", inspect.getsource(validate_document), re.MULTILINE)
        assert names == [rule.__name__ for rule in STRAWBERRY_RULES]

    def test_private_fields_exist(self) -> None:
        assert "_unsafe_disable_same_type_validation" in {field.name for field in fields(StrawberryConfig)}
        assert "from_input" in {field.name for field in fields(StrawberryObjectDefinition)}
        assert "_provided_operation_name" in vars(execution_context(SCHEMA))
        assert issubclass(StrawberryGraphQLCoreExecutionContext, Executor)


class TestDefinitions:
    def test_types_and_fields_refer_to_their_definitions(self) -> None:
        thing = SCHEMA.core_schema.type_map["Thing"]
        assert isinstance(thing, GraphQLObjectType)
        assert strawberry_definition(thing).origin is Thing
        assert strawberry_definition(thing.fields["number"]).python_name == "number"
        assert strawberry_definition(SCHEMA.core_schema.type_map["__Type"]) is None


class TestSourceResolvers:
    def test_only_fields_that_need_their_source_only_are_read_without_an_info(self) -> None:
        resolvers = {name: field.resolve for name, field in core_fields(SCHEMA, "Words").items()}
        assert {name for name, each in resolvers.items() if isinstance(each, SourceResolver)} == {"text", "first"}
        assert isinstance(core_fields(SCHEMA, "Query")["words"].resolve, SourceResolver)
        assert not isinstance(core_fields(SCHEMA, "Query")["plain"].resolve, SourceResolver)

    async def test_every_kind_of_resolver_has_its_result(self) -> None:
        query = "{ words { text first last at(index: 1) path loud refused { ... on Shout { message } } } }"
        result = await SCHEMA.execute(query)
        assert result.data == {
            "words": {
                "text": "one two",
                "first": "one",
                "last": "two",
                "at": "two",
                "path": "words/path",
                "loud": "ONE TWO",
                "refused": {"message": "one two"},
            }
        }

    def test_every_default_resolver_of_the_graph_is_replaced(self) -> None:
        schema = build_merged_schema()
        resolvers = [
            field.resolve
            for name, type_ in schema.core_schema.type_map.items()
            if isinstance(type_, GraphQLObjectType) and not name.startswith("__")
            for field in type_.fields.values()
        ]
        assert not any(is_default_resolver(resolve) for resolve in resolvers if resolve)
        for type_name, field in (("Money", "amount"), ("Operation", "cursor")):
            assert isinstance(core_fields(schema, type_name)[field].resolve, SourceResolver)

    async def test_leaf_has_its_value_or_an_error_with_its_path(self) -> None:
        result = await SCHEMA.execute("{ things { __typename n: number text late } }")
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


async def test_names_of_arguments_are_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[object] = []
    monkeypatch.setattr(NameConverter, "apply_naming_config", lambda _, name: converted.append(name))
    received: list[object] = []
    result = await SCHEMA.execute("{ plain(value: {number: 1}) words { at(index: 1) } }", context_value=received)
    assert (result.errors, len(received)) == (None, 1)
    assert set(converted).isdisjoint({"value", "index"})


class TestPlainInputs:
    def test_only_inputs_of_scalars_and_enums_are_replaced(self) -> None:
        schema = build_merged_schema()
        assert strawberry_definition(schema.core_schema.type_map["TransferMoneyInput"]).from_input is not None
        for name, is_replaced in {"Plain": True, "Change": False, "Both": False}.items():
            type_ = SCHEMA.core_schema.type_map[name]
            assert isinstance(type_, GraphQLInputObjectType)
            assert (strawberry_definition(type_).from_input is not None) is is_replaced

    async def test_strawberry_calls_the_replacement(self, monkeypatch: pytest.MonkeyPatch) -> None:
        replaced = Plain(number=7, text="from the replacement")
        definition = strawberry_definition(SCHEMA.core_schema.type_map["Plain"])
        monkeypatch.setattr(definition, "from_input", lambda *_: replaced)
        received: list[object] = []
        await SCHEMA.execute("{ plain(value: {number: 1}) }", context_value=received)
        assert received == [replaced]

    async def test_absent_fields_have_their_defaults(self) -> None:
        until = datetime(2026, 11, 1, tzinfo=UTC)
        expected = {
            "plain(value: {number: 1})": Plain(number=1, text=None),
            'plain(value: {number: 1, text: null, until: null, from: ""})': Plain(number=1, text=None, from_=""),
            f'plain(value: {{number: 1, text: "a", until: "{until.isoformat()}"}})': Plain(
                number=1, text="a", until=until
            ),
            "both(value: {plain: {number: 2}, change: {}})": Both(
                plain=Plain(number=2, text=None), change=Change(text=None)
            ),
            "both(value: {plain: {number: 2}, change: {text: null}})": Both(
                plain=Plain(number=2, text=None), change=Change(text=strawberry.Some(None))
            ),
        }
        query = "".join(f" x{number}: {field}" for number, field in enumerate(expected))
        received: list[object] = []
        result = await SCHEMA.execute(f"{{ {query} }}", context_value=received)
        assert (result.errors, received) == (None, list(expected.values()))


class RecordingRunner(SchemaExtensionsRunner):
    """Runner that records its executions."""

    created: list[ExecutionContext]

    def __init__(self, context: ExecutionContext) -> None:
        super().__init__(context)
        self.created.append(context)


class CompilingRunner(PreparingRunner):
    """Runner that compiles each operation."""

    plans: list[CompiledOperation]

    async def prepare(self) -> None:
        context = self.execution_context
        context.graphql_document = parse(context.query or "")
        self.plan = OperationCompiler(context.schema.core_schema).compile(context.graphql_document)  # type: ignore[attr-defined]
        self.plans.append(self.plan)


class FailingRunner(PreparingRunner):
    async def prepare(self) -> None:
        raise GraphQLError("refused")


class PreparedRunner(PreparingRunner):
    async def prepare(self) -> None:
        self.execution_context.graphql_document = parse("query A { things { number } }")


class TestRunner:
    @pytest.fixture
    def schema(self, monkeypatch: pytest.MonkeyPatch) -> GraphSchema:
        monkeypatch.setattr(RecordingRunner, "created", [], raising=False)
        return GraphSchema(RecordingRunner, query=Query, subscription=Subscription)

    @pytest.fixture
    def compiled(self, monkeypatch: pytest.MonkeyPatch) -> GraphSchema:
        monkeypatch.setattr(CompilingRunner, "plans", [], raising=False)
        return GraphSchema(CompilingRunner, query=Query, subscription=Subscription)

    async def test_runner_is_created_for_each_execution_and_stream(self, schema: GraphSchema) -> None:
        await schema.execute("{ things { number } }")
        async for _ in await schema.stream("subscription { number }"):
            pass
        assert len(RecordingRunner.created) == 2

    async def test_plan_of_the_runner_is_executed(self, compiled: GraphSchema) -> None:
        result = await compiled.execute("query($no: Boolean!) { things { number @skip(if: $no) } }", {"no": True})
        assert (result.errors, result.data) == (None, {"things": [{}, {}, {}, {}]})
        assert [plan.fields for plan in CompilingRunner.plans] == [1]

    async def test_plan_of_the_runner_executes_the_events_of_a_subscription(self, compiled: GraphSchema) -> None:
        async for result in await compiled.stream("subscription { thing { number } }"):
            assert result.data == {"thing": {"number": 1}}  # type: ignore[union-attr]
        assert [plan.fields for plan in CompilingRunner.plans] == [2]

    async def test_operation_that_is_not_compiled_for_its_variables_is_executed_by_graphql_core(
        self, compiled: GraphSchema
    ) -> None:
        result = await compiled.execute(
            "query($no: Boolean = false) { things { number @skip(if: $no) } }", {"no": None}
        )
        assert result.data == {"things": [None, None, None, None]}
        assert [plan.fields for plan in CompilingRunner.plans] == [0]

    async def test_resolvers_of_a_plan_have_the_info_of_strawberry(self, compiled: GraphSchema) -> None:
        infos: list[strawberry.Info[Any, Any]] = []
        query = "query Q($number: Int!) { plain(value: {number: $number, text: null}) }"
        extensions = {"a": 1}

        class Recorder(list[object]):
            def append(self, value: object) -> None:
                infos.append(inspect.currentframe().f_back.f_locals["info"])  # type: ignore[union-attr]

        await compiled.execute(query, {"number": 1}, context_value=Recorder(), operation_extensions=extensions)
        (info,) = infos
        assert (info.field_name, info.path.as_list(), info.variable_values) == ("plain", ["plain"], {"number": 1})
        assert (info.schema, info.query, info.input_extensions) == (compiled, query, extensions)
        (selected,) = info.selected_fields
        assert (selected.name, selected.arguments["value"]) == ("plain", {"number": 1, "text": None})  # type: ignore[union-attr]

    async def test_error_of_the_runner_is_the_operations_error(self) -> None:
        schema = GraphSchema(FailingRunner, query=Query, subscription=Subscription)
        executed = await schema.execute("{ things { number } }")
        streamed: list[Any] = [result async for result in await schema.stream("subscription { number }")]
        for result in (executed, *streamed):
            assert [error.message for error in result.errors or ()] == ["refused"]
        assert len(streamed) == 1

    async def test_document_of_the_runner_is_executed_without_validation(self) -> None:
        schema = GraphSchema(PreparedRunner, query=Query)
        result = await schema.execute("{ invalid }")
        assert result.data == {"things": [{"number": 1}, {"number": 0}, None, None]}

    def test_only_a_request_that_names_its_operation_has_an_operation_name(self) -> None:
        named, unnamed = execution_context(SCHEMA, "A"), execution_context(SCHEMA)
        unnamed.graphql_document = parse("query A { things { number } }")
        assert [requested_operation_name(each) for each in (named, unnamed)] == ["A", None]
        assert unnamed.operation_name == "A"

    @pytest.mark.parametrize("type_name", ["query", "mutation", "subscription"])
    def test_operation_of_a_type_that_the_transport_does_not_execute_is_refused(self, type_name: str) -> None:
        context = execution_context(SCHEMA)
        with pytest.raises(OperationRefused):
            check_operation_type(context, type_name)
        context.allowed_operations = frozenset({OperationType(type_name)})
        check_operation_type(context, type_name)


class TestDirectives:
    def test_only_a_federation_schema_shows_federation_directives(self) -> None:
        for_clients, for_routers = (
            {directive.name for directive in build_merged_schema(federation=federation).core_schema.directives}
            for federation in (False, True)
        )
        assert "key" in for_routers - for_clients


class TestSameTypeNames:
    def test_two_classes_of_one_name_are_accepted_in_a_merged_schema_only(self) -> None:
        first, second = (
            strawberry.type(type(each, (), {"__annotations__": {"text": str}}), name="Twin") for each in ("One", "Two")
        )
        query = strawberry.type(type("Query", (), {"__annotations__": {"first": first, "second": second}}))
        assert GraphSchema(query=query, config=schema_config({}, is_merged=True))
        with pytest.raises(DuplicatedTypeName):
            GraphSchema(query=query, config=schema_config({}, is_merged=False))


def core_fields(schema: strawberry.Schema, name: str) -> dict[str, GraphQLField]:
    """Return the fields of a type in graphql-core's schema."""
    type_ = schema._schema.type_map[name]
    assert isinstance(type_, GraphQLObjectType)
    fields: dict[str, GraphQLField] = type_.fields
    return fields


def test_strawberry_generates_clients_with_secrets() -> None:
    operation = "mutation TopUp($input: TopUpAccountInput!) { topUpAccount(input: $input) { __typename } }"
    generated = QueryCodegen(build_merged_schema(), plugins=[PythonPlugin(Path("top_up.graphql"))]).run(operation)
    assert 'Secret = NewType("Secret", str)' in generated.to_string()


def test_null_defaults_are_removed() -> None:
    types: Any = build_merged_schema().core_schema.type_map
    arguments = [argument for field in types["Account"].fields.values() for argument in field.args.values()]
    inputs = [*types["OperationFilter"].fields.values()]
    assert len(arguments) > 4
    assert [each.default_value for each in (*arguments, *inputs) if each.default_value is None] == []
