"""Document cache, shared cache of collected sub-fields, and trusted documents."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from graphql import GraphQLError

from gateway.graphql.execution import documents
from gateway.graphql.execution.context import Context
from gateway.graphql.execution.documents import Document, DocumentCache
from gateway.graphql.execution.runner import OperationRunner
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.protection.limits import Limits
from gateway.graphql.protection.trusted_documents import TrustedDocuments
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from kit.rpc import request_context
from tests.unit.gateway.graphql.policies import SCHEMA, VALIDATOR, new_policy


@pytest.fixture
def cache() -> DocumentCache:
    return DocumentCache(Limits(), VALIDATOR)


def load(cache: DocumentCache, text: str) -> Document:
    """Load the document of a new request."""
    return cache.load(SCHEMA, text, Limits().new_budget(is_anonymous=False))


class TestDocumentCache:
    def test_document_with_variables_is_cached(self, cache: DocumentCache) -> None:
        text = "query($name: String!) { __type(name: $name) { name } }"
        assert load(cache, text) is load(cache, text)
        assert len(cache) == 1

    def test_invalid_document_is_not_cached(self, cache: DocumentCache) -> None:
        assert load(cache, "{ wrong }").errors
        assert len(cache) == 0

    def test_least_recently_used_document_is_evicted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one, two, three = [f"query {name} {{ __typename }}" for name in ("One", "Two", "Tri")]
        monkeypatch.setattr(documents, "_MAX_CHARACTERS", 2 * len(one))
        cache = DocumentCache(Limits(), VALIDATOR)
        first, second = load(cache, one), load(cache, two)
        assert load(cache, one) is first  # so `two` is the least recently used
        load(cache, three)
        assert load(cache, one) is first
        assert len(cache) == 2
        assert load(cache, two) is not second

    @pytest.mark.parametrize(
        "text",
        [
            '{ __type(name: "TopUp") { name } }',
            '{ __type(name: """TopUp""") { name } }',
            "{ x(number: 4242, cvv: 739) }",
        ],
    )
    def test_document_with_literal_values_is_not_cached(self, cache: DocumentCache, text: str) -> None:
        assert load(cache, text) is not load(cache, text)
        assert len(cache) == 0

    def test_syntax_error_is_not_cached(self, cache: DocumentCache) -> None:
        with pytest.raises(GraphQLError, match="Syntax Error"):
            load(cache, "{")
        assert len(cache) == 0


class TestSharedSubfields:
    @pytest.fixture
    def execute(self) -> Callable[..., Awaitable[Any]]:
        schema = build_merged_schema(partial(OperationRunner, new_policy()))
        client: Any = None

        async def execute(text: str, **variables: Any) -> Any:
            request_context.current_request.set(request_context.RequestContext("the-request"))
            context = Context(client, client, client, client, RateLimiter(RateLimitOptions(is_on=False)))
            result = await schema.execute(text, variable_values=variables, context_value=context)
            assert result.errors is None
            return result.data

        return execute

    async def test_executions_of_one_document_select_the_same_fields(self, execute: Any) -> None:
        text = """query($name: String!) { __type(name: $name) { name fields { name type { ...T } } } }
            fragment T on __Type { kind }"""
        first, again, other = [await execute(text, name=name) for name in ("TopUp", "TopUp", "Transfer")]
        assert first == again
        assert other["__type"]["name"] == "Transfer"
        assert all(
            set(field) == {"name", "type"} and set(field["type"]) == {"kind"} for field in other["__type"]["fields"]
        )

    async def test_execution_does_not_validate_the_document_again(
        self, execute: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def validate_again(*_: Any, **__: Any) -> NoReturn:
            raise AssertionError("the document was validated again")

        monkeypatch.setattr("strawberry.schema.schema.validate", validate_again)
        text = "query($name: String!) { __type(name: $name) { name } }"
        for _ in range(2):
            assert await execute(text, name="TopUp") == {"__type": {"name": "TopUp"}}

    async def test_include_directive_is_evaluated_for_each_execution(self, execute: Any) -> None:
        text = "query($all: Boolean!) { __schema { queryType { name kind @include(if: $all) } } }"
        selected = [set((await execute(text, all=each))["__schema"]["queryType"]) for each in (True, False, True)]
        assert selected == [{"name", "kind"}, {"name"}, {"name", "kind"}]


class TestTrustedDocuments:
    def test_manifest_with_a_wrong_hash_is_rejected(self, tmp_path: Path) -> None:
        manifest = tmp_path / "documents.json"
        manifest.write_text(json.dumps({hashlib.sha256(b"{ a }").hexdigest(): "{ b }"}))
        with pytest.raises(ValueError, match="is not the SHA-256 of its document"):
            TrustedDocuments.load(manifest)

    @pytest.mark.parametrize("text", ["[]", "{", '{"hash": 1}'])
    def test_manifest_that_does_not_map_hashes_to_texts_is_rejected(self, tmp_path: Path, text: str) -> None:
        manifest = tmp_path / "documents.json"
        manifest.write_text(text)
        with pytest.raises(ValueError, match="validation error"):
            TrustedDocuments.load(manifest)

    def test_operation_names_come_from_all_documents(self) -> None:
        texts = ("query A { a } mutation B { b }", "{ a }", "fragment F on T { a }")
        trusted = TrustedDocuments({hashlib.sha256(text.encode()).hexdigest(): text for text in texts})
        assert trusted.operation_names == ["A", "B"]
        assert TrustedDocuments(None).operation_names is None
