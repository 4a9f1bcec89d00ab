"""Which texts are executed, and what the graph remembers of them."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLError

from gateway.graphql.execution import documents
from gateway.graphql.execution.documents import Reader, TrustedDocuments
from gateway.graphql.execution.metrics import Names
from gateway.graphql.execution.schema import Context, PerExecution, Policy
from gateway.graphql.federation.composition import compose
from gateway.graphql.protection.limits import Limits
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from gateway.http.stream_limits import StreamLimiter
from kit.rpc import request_context

SCHEMA = compose()._schema


@pytest.fixture
def reader() -> Reader:
    return Reader(Limits(), introspection=True)


class TestTexts:
    def test_that_take_their_values_by_variables_are_remembered(self, reader: Reader) -> None:
        text = "query($name: String!) { __type(name: $name) { name } }"
        assert reader.read(SCHEMA, text) is reader.read(SCHEMA, text)
        assert reader.remembered == 1

    def test_that_are_not_valid_are_not(self, reader: Reader) -> None:
        assert reader.read(SCHEMA, "{ wrong }").errors
        assert reader.remembered == 0

    def test_make_room_for_others_by_their_length(self, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
        one, two, three = [f"query {name} {{ __typename }}" for name in ("One", "Two", "Tri")]
        monkeypatch.setattr(documents, "_KEPT_CHARACTERS", 2 * len(one))
        first, second = reader.read(SCHEMA, one), reader.read(SCHEMA, two)
        assert reader.read(SCHEMA, one) is first  # so that the other one has not come for longest
        reader.read(SCHEMA, three)
        assert reader.read(SCHEMA, one) is first
        assert reader.remembered == 2
        assert reader.read(SCHEMA, two) is not second

    @pytest.mark.parametrize(
        "text",
        [
            '{ __type(name: "TopUp") { name } }',
            '{ __type(name: """TopUp""") { name } }',
            "{ x(number: 4242, cvv: 739) }",
        ],
    )
    def test_with_values_in_them_are_not(self, reader: Reader, text: str) -> None:
        assert reader.read(SCHEMA, text) is not reader.read(SCHEMA, text)
        assert reader.remembered == 0

    def test_that_are_no_documents_are_not(self, reader: Reader) -> None:
        with pytest.raises(GraphQLError, match="Syntax Error"):
            reader.read(SCHEMA, "{")
        assert reader.remembered == 0


class TestExecutionsOfOneText:
    @pytest.fixture
    def execute(self, reader: Reader) -> Callable[..., Awaitable[Any]]:
        policy = Policy(reader, Limits().cost, Names(None), suggestions=True, streams=StreamLimiter(2))
        schema = compose(partial(PerExecution, policy))
        client: Any = None

        async def execute(text: str, **variables: Any) -> Any:
            request_context.current_request.set(request_context.RequestContext("the-request"))
            context = Context(client, client, client, client, RateLimiter(RateLimitOptions(is_on=False)))
            result = await schema.execute(text, variable_values=variables, context_value=context)
            assert result.errors is None
            return result.data

        return execute

    async def test_share_what_is_selected(self, execute: Any) -> None:
        text = """query($name: String!) { __type(name: $name) { name fields { name type { ...T } } } }
            fragment T on __Type { kind }"""
        first, again, other = [await execute(text, name=name) for name in ("TopUp", "TopUp", "Transfer")]
        assert first == again
        assert other["__type"]["name"] == "Transfer"
        assert all(
            set(field) == {"name", "type"} and set(field["type"]) == {"kind"} for field in other["__type"]["fields"]
        )

    async def test_select_by_their_own_variables(self, execute: Any) -> None:
        text = "query($all: Boolean!) { __schema { queryType { name kind @include(if: $all) } } }"
        selected = [set((await execute(text, all=each))["__schema"]["queryType"]) for each in (True, False, True)]
        assert selected == [{"name", "kind"}, {"name"}, {"name", "kind"}]


class TestTrustedDocuments:
    def test_are_held_against_their_hashes(self, tmp_path: Path) -> None:
        manifest = tmp_path / "documents.json"
        manifest.write_text(json.dumps({hashlib.sha256(b"{ a }").hexdigest(): "{ b }"}))
        with pytest.raises(ValueError, match="is not the SHA-256 of its document"):
            TrustedDocuments.load(manifest)

    @pytest.mark.parametrize("text", ["[]", "{", '{"hash": 1}'])
    def test_are_a_json_object_of_texts(self, tmp_path: Path, text: str) -> None:
        manifest = tmp_path / "documents.json"
        manifest.write_text(text)
        with pytest.raises(ValueError, match="validation error"):
            TrustedDocuments.load(manifest)

    def test_know_the_names_of_their_operations(self) -> None:
        texts = ("query A { a } mutation B { b }", "{ a }", "fragment F on T { a }")
        documents = TrustedDocuments({hashlib.sha256(text.encode()).hexdigest(): text for text in texts})
        assert documents.operations == ["A", "B"]
        assert TrustedDocuments(None).operations is None
