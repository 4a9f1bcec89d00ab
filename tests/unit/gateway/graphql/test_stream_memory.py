"""A subscription keeps no objects of past events, and its own objects are freed when it ends.

The tests count objects, because the size of the memory depends on the allocator.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson
import pytest
import strawberry
from graphql.execution import Executor
from graphql.execution.collect_fields import CollectedFields, FieldDetails
from strawberry.types import ExecutionContext

from gateway.graphql.execution.context import Context
from gateway.graphql.execution.documents import DocumentLoader
from gateway.graphql.execution.metrics import OPERATION_ERRORS
from gateway.graphql.execution.runner import OperationRunner
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.execution.strawberry_internals import GraphSchema
from gateway.graphql.protection.limits import WebSocketLimits
from gateway.graphql.protection.trusted_documents import TrustedDocuments
from gateway.graphql.transport.http import GraphQLOverHTTP
from gateway.graphql.transport.websocket import GraphQLOverWebSocket
from gateway.http.cors import CorsOptions
from gateway.http.stream_limits import StreamLimiter
from gateway.http.work_limits import WorkLimits
from kit.auth.principal import Principal, Role
from kit.rpc import request_context
from subgraphs.analytics import client
from tests.operations import new_operation
from tests.unit.gateway.graphql.full_services import ID, FullServices
from tests.unit.gateway.graphql.policies import new_policy
from wallet import cursor
from wallet.errors import Unavailable

CUSTOMER = Principal("issuer", "alice", is_service=False, expires_at=2.0**33, roles=frozenset({Role.CUSTOMER}))
SCHEMA = build_merged_schema(partial(OperationRunner, new_policy()))
DOCUMENTS: Final = {
    "plain": "amount { amount currency } counterparty { id }",
    "directive": "amount { amount currency } counterparty @include(if: true) { id }",
    "merged selections": "amount { amount } amount { currency } counterparty { id }",
    "fragment": "...F",
}
FRAGMENT = " fragment F on Operation { amount { amount currency } counterparty { id } }"
EARLY, LATE = 100, 400
STREAM_TYPES = (Executor, ExecutionContext, OperationRunner, Context)
"""Types of which each stream has its own objects."""
ENDED = 20
"""Number of subscriptions that the client ends."""
OPERATION_TYPES = (Executor, ExecutionContext, OperationRunner, BaseException)
WEBSOCKET_SCOPE: Final = {
    "type": "websocket",
    "path": "/graphql",
    "query_string": b"",
    "headers": [],
    "subprotocols": ["graphql-transport-ws"],
}


@dataclass
class History(FullServices):
    """Services with an account whose history has `LATE` operations."""

    async def watch_operations(self, account_id: Any, after: int, epoch: str) -> AsyncGenerator[client.Operation, None]:
        for version in range(after + 1, LATE + 1):
            yield new_operation(version)


class SilentHistory(FullServices):
    """Services whose streams send nothing. The semaphores count the streams that have started and ended."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.ended = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def watch_operations(self, *_: Any) -> AsyncGenerator[client.Operation, None]:
        self.started.release()
        try:
            await asyncio.Event().wait()
            yield new_operation(1)
        finally:
            self.ended.release()


@strawberry.type
class Item:
    @strawberry.field
    def unavailable(self) -> str | None:
        raise Unavailable("the bank")


@strawberry.type
class Query:
    item: Item


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def items(self) -> AsyncGenerator[Item, None]:
        for _ in range(LATE):
            yield Item()


class Verifier:
    async def verify(self, _: str) -> Principal:
        return CUSTOMER


@pytest.fixture(autouse=True)
def caller() -> None:
    request_context.current_request.set(request_context.RequestContext("the-request", principal=CUSTOMER))


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Turn off the garbage collector: only reference counts free objects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def payload(fields: str) -> dict[str, Any]:
    """Return the request of a subscription that replays the whole history."""
    query = f"subscription($id: ID!, $after: String) {{ operationAdded(accountId: $id, after: $after) {{ {fields} }} }}"
    query += FRAGMENT if "...F" in fields else ""
    return {"query": query, "variables": {"id": str(ID), "after": cursor.encode_version(0)}}


async def read_event_stream(fields: str, on_event: Callable[[int], None]) -> None:
    """Read a subscription over server-sent events until its end.

    Args:
        fields: selection of the subscription.
        on_event: called with the number of each event when it is sent.
    """
    services, events = History(), 0
    app = GraphQLOverHTTP(
        SCHEMA, services.context, TrustedDocuments(None), asyncio.Event(), WorkLimits(), batch_limit=1, graphiql=False
    )
    body = [{"type": "http.request", "body": orjson.dumps(payload(fields))}]

    async def receive() -> Any:
        if body:
            return body.pop()
        return await asyncio.Future[Any]()  # the client stays connected

    async def send(message: Any) -> None:
        nonlocal events
        if message.get("body", b"").startswith(b"event: next"):
            events += 1
            on_event(events)

    headers = [(b"accept", b"text/event-stream"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/graphql", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    assert events == LATE


def websocket_app(services: FullServices) -> GraphQLOverWebSocket:
    """Return the WebSocket endpoint of a gateway with these services."""
    verifier: Any = Verifier()
    return GraphQLOverWebSocket(
        SCHEMA,
        services.context,
        TrustedDocuments(None),
        verifier,
        services.context().rate_limiter,
        WebSocketLimits(),
        StreamLimiter(2),
        WorkLimits(),
        cors=CorsOptions(),
    )


async def read_websocket(fields: str, on_event: Callable[[int], None]) -> None:
    """Read a subscription over a WebSocket until its end, then close the connection.

    The arguments are those of `read_event_stream`.
    """
    services, incoming, events = History(), asyncio.Queue[Any](), 0
    app = websocket_app(services)

    def put(**message: Any) -> None:
        incoming.put_nowait({"type": "websocket.receive", "text": orjson.dumps(message).decode()})

    async def send(message: Any) -> None:
        nonlocal events
        content = orjson.loads(message.get("text", "{}"))
        match content.get("type"):
            case "connection_ack":
                put(id="1", type="subscribe", payload=payload(fields))
            case "next":
                events += 1
                on_event(events)
            case "complete":
                incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})

    incoming.put_nowait({"type": "websocket.connect"})
    put(type="connection_init", payload={"authorization": "Bearer x"})
    await app(WEBSOCKET_SCOPE.copy(), incoming.get, send)
    assert events == LATE


TRANSPORTS = {"server-sent events": read_event_stream, "WebSocket": read_websocket}


def count_objects(types: tuple[type, ...]) -> Counter[str]:
    """Return the number of live objects of these types and their subclasses."""
    return Counter(type(each).__name__ for each in gc.get_objects() if issubclass(type(each), types))


def longest_list(text: str) -> int:
    """Return the length of the longest live list whose first item is this text."""
    lists = (each for each in gc.get_objects() if type(each) is list and each and type(each[0]) is str)
    return max((len(each) for each in lists if each[0] == text), default=0)


@pytest.mark.parametrize("read", TRANSPORTS.values(), ids=TRANSPORTS)
class TestStream:
    @pytest.mark.parametrize("is_compiled", [True, False], ids=["compiled", "graphql-core"])
    @pytest.mark.parametrize("fields", DOCUMENTS.values(), ids=DOCUMENTS)
    async def test_sub_fields_of_past_events_are_freed(
        self,
        read: Callable[..., Any],
        fields: str,
        is_compiled: bool,
        without_collector: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if not is_compiled:
            monkeypatch.setattr(DocumentLoader, "plan", lambda *_: None)
        counts: list[Counter[str]] = []

        def count(number: int) -> None:
            if number in (EARLY, LATE):
                counts.append(count_objects((CollectedFields, FieldDetails, *STREAM_TYPES)))

        await read(fields, count)
        early, late = counts
        assert early["_Executor"]
        assert late == early

    async def test_end_of_a_stream_frees_it_without_the_garbage_collector(
        self, read: Callable[..., Any], without_collector: None
    ) -> None:
        during: Counter[str] = Counter()

        def count(number: int) -> None:
            if number == LATE:
                during.update(count_objects(STREAM_TYPES))

        before = count_objects(STREAM_TYPES)
        others = asyncio.all_tasks()  # tasks of fixtures that live as long as the session
        await read(DOCUMENTS["plain"], count)
        if cancelled := asyncio.all_tasks() - others:
            await asyncio.wait(cancelled)
            del cancelled
        assert set(during - before) == {"_Executor", "ExecutionContext", "OperationRunner", "Context"}
        assert count_objects(STREAM_TYPES) == before


async def test_subscriptions_that_the_client_ends_are_freed_without_the_garbage_collector(
    without_collector: None,
) -> None:
    services, incoming, answers = SilentHistory(), asyncio.Queue[Any](), asyncio.Queue[Any]()
    app = websocket_app(services)

    def put(**message: Any) -> None:
        incoming.put_nowait({"type": "websocket.receive", "text": orjson.dumps(message).decode()})

    async def send(message: Any) -> None:
        if "text" in message:
            answers.put_nowait(orjson.loads(message["text"])["type"])

    incoming.put_nowait({"type": "websocket.connect"})
    put(type="connection_init", payload={"authorization": "Bearer x"})
    connection = asyncio.create_task(app(WEBSOCKET_SCOPE.copy(), incoming.get, send))
    assert await answers.get() == "connection_ack"
    before = count_objects(OPERATION_TYPES)
    for number in range(ENDED):
        put(id=str(number), type="subscribe", payload=payload(DOCUMENTS["plain"]))
        await services.started.acquire()
        put(id=str(number), type="complete")
        await services.ended.acquire()
    put(type="ping")
    assert await answers.get() == "pong"
    for _ in range(20):  # the tasks that were cancelled end
        await asyncio.sleep(0)
    # Services of the session, such as a bank without a broker, may have some errors more or fewer than before.
    assert max((count_objects(OPERATION_TYPES) - before).values(), default=0) < ENDED
    incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await connection


async def test_errors_of_past_events_are_counted_and_freed() -> None:
    schema = GraphSchema(partial(OperationRunner, new_policy()), query=Query, subscription=Subscription)
    errors = OPERATION_ERRORS.labels("subscription", "anonymous", Unavailable.reason)
    before, lengths = errors._value.get(), list[int]()
    context = FullServices().context()
    results: Any = await schema.stream("subscription { items { unavailable } }", context_value=context)
    async for result in results:
        assert len(result.errors) == 1
        lengths.append(longest_list(Unavailable.reason) if len(lengths) in (EARLY, LATE - 1) else 0)
    assert errors._value.get() - before == len(lengths) == LATE
    assert max(lengths) < EARLY
