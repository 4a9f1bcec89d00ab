"""Loading of documents and their cache, shared cache of collected sub-fields, and trusted documents."""

import asyncio
import hashlib
import json
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from graphql import GraphQLError

from gateway.errors import OperationRefused
from gateway.graphql.execution import documents
from gateway.graphql.execution.context import Context
from gateway.graphql.execution.documents import Document, DocumentLoader, read_document
from gateway.graphql.execution.runner import OperationRunner
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.protection.document_cost import document_cost
from gateway.graphql.protection.limits import Limits
from gateway.graphql.protection.trusted_documents import TrustedDocuments
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from kit.rpc import request_context
from tests.unit.gateway.graphql.policies import SCHEMA, VALIDATOR, InlineExecutor, new_policy


@pytest.fixture
def loader() -> DocumentLoader:
    return DocumentLoader(Limits(), VALIDATOR)


class HeldExecutor(InlineExecutor):
    """Executor that runs the next function when the test says so."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._held: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._count = asyncio.Semaphore(0)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._held.append((future, partial(function, *arguments, **options)))
        self.texts.append(arguments[1])
        self._count.release()
        return future

    async def receive(self) -> None:
        """Wait until one more text is submitted."""
        async with asyncio.timeout(5):
            await self._count.acquire()

    def run_next(self) -> None:
        """Run the next function, unless it is cancelled."""
        future, function = self._held.popleft()
        if future.set_running_or_notify_cancel():
            future.set_result(function())


async def load(loader: DocumentLoader, text: str, client: str = "alice") -> Document:
    """Load the document of a new request."""
    budget = Limits().new_budget(is_anonymous=False)
    cost = document_cost(text, budget.tokens)
    return await loader.load(SCHEMA, text, cost=cost, client=client, budget=budget)


class TestDocumentCache:
    async def test_document_with_variables_is_cached(self, loader: DocumentLoader) -> None:
        text = "query($name: String!) { __type(name: $name) { name } }"
        document = await load(loader, text)
        assert loader.cached(SCHEMA, text) is document
        assert await load(loader, text) is document
        assert len(loader) == 1

    async def test_invalid_document_is_not_cached(self, loader: DocumentLoader) -> None:
        assert (await load(loader, "{ wrong }")).errors
        assert len(loader) == 0

    async def test_least_recently_used_document_is_evicted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one, two, three = [f"query {name} {{ __typename }}" for name in ("One", "Two", "Tri")]
        monkeypatch.setattr(documents, "_MAX_CACHED_COST", 2 * document_cost(one, 100))
        loader = DocumentLoader(Limits(), VALIDATOR)
        first, second = await load(loader, one), await load(loader, two)
        assert loader.cached(SCHEMA, one) is first  # so `two` is the least recently used
        await load(loader, three)
        assert loader.cached(SCHEMA, one) is first
        assert len(loader) == 2
        assert await load(loader, two) is not second

    @pytest.mark.parametrize(
        "text",
        [
            '{ __type(name: "TopUp") { name } }',
            '{ __type(name: """TopUp""") { name } }',
            "query($id: ID!) { account(id: $id) { operations(first: 100) { edges { cursor } } } }",
        ],
    )
    async def test_document_with_literal_values_is_not_cached(self, loader: DocumentLoader, text: str) -> None:
        first = await load(loader, text)
        assert not first.errors
        assert await load(loader, text) is not first
        assert len(loader) == 0

    async def test_syntax_error_is_not_cached(self, loader: DocumentLoader) -> None:
        with pytest.raises(GraphQLError, match="Syntax Error"):
            await load(loader, "{")
        assert len(loader) == 0

    async def test_replacing_the_cached_documents_costs_as_much_as_all_of_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(documents, "_MAX_CACHED_COST", 20_000)
        loader, ordinary, paid = DocumentLoader(Limits(), VALIDATOR), "{ me { id } }", 0
        await load(loader, ordinary)
        for number in range(100):
            if loader._documents.keys() & {(SCHEMA, ordinary)}:
                padded = "{ __typename }" + " " * (60_000 + number)
                paid += document_cost(padded, 2_000)
                await load(loader, padded)
        assert 20_000 - document_cost(ordinary, 2_000) < paid < 30_000


class TestThread:
    async def test_event_loop_runs_while_a_document_is_processed(self) -> None:
        thread = HeldExecutor()
        loader = DocumentLoader(Limits(), VALIDATOR, thread)
        loading = asyncio.create_task(load(loader, "{ me { id } }"))
        await thread.receive()
        assert not loading.done()
        thread.run_next()
        assert not (await loading).errors

    async def test_clients_take_turns(self) -> None:
        thread = HeldExecutor()
        loader = DocumentLoader(Limits(), VALIDATOR, thread)
        texts = [f"{{ a{number}: me {{ id }} }}" for number in range(4)]
        loads = [asyncio.create_task(load(loader, text, "mallory")) for text in texts]
        loads.append(asyncio.create_task(load(loader, "{ me { id } }", "alice")))
        for _ in range(5):
            await thread.receive()
            thread.run_next()
        await asyncio.gather(*loads)
        assert thread.texts == [texts[0], "{ me { id } }", *texts[1:]]

    async def test_text_that_many_callers_send_at_once_is_processed_once(self) -> None:
        thread = HeldExecutor()
        loader = DocumentLoader(Limits(), VALIDATOR, thread)
        loads = [asyncio.create_task(load(loader, "{ me { id } }", f"caller {number}")) for number in range(20)]
        await thread.receive()
        thread.run_next()
        first, *others = await asyncio.gather(*loads)
        assert all(each is first for each in others)

    async def test_cancelled_request_gives_its_turn_to_the_next_one(self) -> None:
        thread = HeldExecutor()
        loader = DocumentLoader(Limits(), VALIDATOR, thread)
        cancelled = asyncio.create_task(load(loader, "{ a: me { id } }"))
        await thread.receive()
        waiting = asyncio.create_task(load(loader, "{ b: me { id } }"))
        cancelled.cancel()
        await thread.receive()
        thread.run_next()
        thread.run_next()
        assert not (await waiting).errors

    async def test_thread_gives_way_to_the_event_loop_soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        default, during = sys.getswitchinterval(), []

        def read(*arguments: Any) -> Document:
            during.append(sys.getswitchinterval())
            return read_document(*arguments)

        monkeypatch.setattr(documents, "read_document", read)
        await load(DocumentLoader(Limits(), VALIDATOR), "{ me { id } }")
        assert during == [pytest.approx(0.0005)]
        assert sys.getswitchinterval() == default


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

    @pytest.mark.parametrize(
        ("texts", "message"), [(None, "PersistedQueryNotSupported"), ({}, "PersistedQueryNotFound")]
    )
    def test_refused_hash_has_the_message_that_clients_look_for(
        self, texts: dict[str, str] | None, message: str
    ) -> None:
        with pytest.raises(OperationRefused) as caught:
            TrustedDocuments(texts).resolve_text(None, "0" * 64)
        assert caught.value.message == message
