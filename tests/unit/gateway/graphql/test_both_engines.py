"""Compiled operations and graphql-core give the same responses for the operations of the whole repository."""

import re
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import pytest
from graphql import (
    DocumentNode,
    is_enum_type,
    is_input_object_type,
    is_list_type,
    is_non_null_type,
    is_required_input_field,
    type_from_ast,
    validate,
)
from graphql.language import OperationDefinitionNode, print_ast
from hypothesis import given
from hypothesis import strategies as st
from strawberry.types.graphql import OperationType as AllowedType

from gateway.graphql.execution import documents
from gateway.graphql.execution.runner import OperationRunner
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.protection.access import guard_root_fields
from gateway.graphql.transport.responses import format_result
from kit.auth.principal import Principal, Role
from kit.rpc import request_context
from tests.unit.gateway.graphql.deciding_services import MISSING, DecidingServices
from tests.unit.gateway.graphql.example_operations import example_operations
from tests.unit.gateway.graphql.full_services import ID
from tests.unit.gateway.graphql.policies import new_policy

ADMIN: Final = Principal("issuer", "alice", is_service=False, expires_at=2.0**33, roles=frozenset({Role.ADMIN}))
MAX_EVENTS: Final = 3


def build_engine(*, is_compiled: bool) -> Any:
    """Return the merged graph, as a federation subgraph, with one of the engines."""
    policy = new_policy(compile_operations=is_compiled)
    schema = build_merged_schema(partial(OperationRunner, policy), federation=True)
    guard_root_fields(schema.core_schema)
    return schema, policy


CORE, COMPILED = (build_engine(is_compiled=is_compiled) for is_compiled in (False, True))
GRAPH: Final = CORE[0].core_schema


@pytest.fixture(autouse=True)
def all_documents_are_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile documents with literal values, too."""
    monkeypatch.setattr(documents, "_LITERALS", re.compile(r"(?!)"))


@pytest.fixture(autouse=True)
def caller() -> None:
    request_context.current_request.set(request_context.RequestContext("the-request", principal=ADMIN))


async def respond(engine: Any, text: str, name: str | None, variables: Mapping[str, Any]) -> list[Any]:
    """Return the response of an operation, or those of the first events of a subscription, and the actual cost."""
    schema, _ = engine
    context = DecidingServices().context()
    options: dict[str, Any] = {
        "variable_values": dict(variables),
        "context_value": context,
        "operation_name": name,
        "allowed_operation_types": frozenset(AllowedType),
    }
    if not text.lstrip().startswith("subscription"):
        context.operations = []
        return [comparable(format_result(await schema.execute(text, **options))), context.cost.actual]
    responses = []
    async with aclosing(await schema.stream(text, **options)) as results:
        async for result in results:
            responses.append(comparable(format_result(result)))
            if len(responses) == MAX_EVENTS:
                break
    return responses


def is_compiled(text: str, name: str | None) -> bool:
    """Return whether an operation was executed by its plan; True if its document was refused before."""
    schema, policy = COMPILED
    document = policy.documents.cached(schema.core_schema, text)
    return document is None or policy.documents.plan(document, name) is not None


def comparable(response: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the data with the order of its keys, and the errors in a fixed order."""
    return repr(response.get("data", "no data")), sorted(map(repr, response.get("errors", ())))


class Values:
    """Variables of an operation, by the types of the variables.

    Attributes:
        kind: `full`: every variable has a value. `sparse`: only the required ones have one. `missing`: as `full`, with
            ids that no service knows. `wrong`: as `full`, with one value of a wrong type.
    """

    KINDS: Final = ("full", "sparse", "missing", "wrong")

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def of(self, operation: OperationDefinitionNode) -> dict[str, Any]:
        values = {}
        for each in operation.variable_definitions or ():
            type_: Any = type_from_ast(GRAPH, each.type)
            if is_non_null_type(type_) or self.kind != "sparse":
                values[each.variable.name.value] = self._value(each.variable.name.value, type_)
        if self.kind == "wrong" and values:
            values[min(values)] = {"wrong": [1]}
        return values

    def _value(self, name: str, type_: Any) -> Any:
        if is_non_null_type(type_):
            return self._value(name, type_.of_type)
        if is_list_type(type_):
            return [self._value(name, type_.of_type)] * 2
        if is_enum_type(type_):
            return next(iter(type_.values))
        if is_input_object_type(type_):
            return {
                key: self._value(key, field.type)
                for key, field in type_.fields.items()
                if self.kind != "sparse" or is_required_input_field(field)
            }
        id_ = str(MISSING if self.kind == "missing" else ID)
        values: dict[str, Any] = {
            "ID": id_,
            "Int": 2,
            "Boolean": self.kind != "sparse",
            "DateTime": "2026-01-01T00:00:00Z" if name == "from" else "2026-01-03T00:00:00Z",
            "Metadata": {"order": "42"},
            "_Any": {"__typename": "Account", "id": id_},
            "Secret": "4242",
        }
        texts = {"amount": "1000.00" if self.kind == "missing" else "10.00", "currency": "RUB", "after": "djA"}
        return values.get(type_.name, texts.get(name, "text"))


def valid_examples() -> list[tuple[str, DocumentNode, OperationDefinitionNode]]:
    """Return the operations of the repository that are valid for the graph, each with its place and its document."""
    return [
        (place, document, each)
        for place, document in example_operations()
        if not validate(GRAPH, document)
        for each in document.definitions
        if isinstance(each, OperationDefinitionNode)
    ]


class TestExamples:
    @pytest.mark.slow
    @pytest.mark.parametrize("kind", Values.KINDS)
    async def test_responses_and_costs_of_both_engines_are_equal(self, kind: str) -> None:
        compared = with_data = 0
        for place, document, operation in valid_examples():
            fragments = [each for each in document.definitions if not isinstance(each, OperationDefinitionNode)]
            text = "\n".join(map(print_ast, [operation, *fragments]))
            name = operation.name.value if operation.name else None
            variables = Values(kind).of(operation)
            # The first variables of a compiled operation are read by graphql-core, the next ones by compiled readers.
            for _ in range(2):
                expected = await respond(CORE, text, name, variables)
                actual = await respond(COMPILED, text, name, variables)
                assert actual == expected, f"{place}\n{text}\n{variables}"
            assert is_compiled(text, name) or "__schema" in text or "__type(" in text, place
            compared += 1
            with_data += any(isinstance(each, tuple) and each[0] not in {"None", "'no data'"} for each in expected)
        assert compared > 150
        assert with_data > 100 or kind == "wrong"


ENTITIES: Final = """
query($them: [_Any!]!, $deep: Boolean = true) {
  _entities(representations: $them) {
    __typename
    ... on Account { id balance { amount } operations(first: 2) @include(if: $deep) { edges { node { id type } } } }
    ... on Transfer { id amount { amount } sender { id } }
    ... on TopUp { id status account { id balance { amount } } }
    ... on User { id username accounts(first: 1) { edges { node { id } } } }
  }
}
"""
REPRESENTATIONS: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {"__typename": st.sampled_from(["Account", "Transfer", "TopUp", "User", "Money", "Nothing"])},
    optional={"id": st.sampled_from([str(ID), str(MISSING), "42", 42, None, ""])},
) | st.sampled_from([{}, "text", None, 7])


class TestEntities:
    @given(them=st.lists(REPRESENTATIONS, max_size=6), deep=st.sampled_from([True, False, None, ...]))
    async def test_results_and_errors_of_both_engines_are_equal(self, them: list[Any], deep: Any) -> None:
        variables = {"them": them, **({} if deep is ... else {"deep": deep})}
        for _ in range(2):
            expected = await respond(CORE, ENTITIES, None, variables)
            assert await respond(COMPILED, ENTITIES, None, variables) == expected
