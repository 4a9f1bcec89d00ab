"""GraphQL over HTTP, on a small schema."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Any

import httpx
import orjson
import pytest
import strawberry
from strawberry.types import Info
from structlog.testing import capture_logs

from gateway.graphql.execution.compiled import CompiledOperation
from gateway.graphql.execution.context import Context
from gateway.graphql.execution.metrics import OPERATION_ERRORS
from gateway.graphql.execution.runner import OperationRunner
from gateway.graphql.execution.strawberry_internals import GraphSchema
from gateway.graphql.protection.trusted_documents import TrustedDocuments
from gateway.graphql.transport import responses
from gateway.graphql.transport.http import GraphQLOverHTTP
from gateway.graphql.transport.requests import EVENT_STREAM, GRAPHQL_RESPONSE, HTML, negotiate
from gateway.http.media_types import JSON
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from gateway.http.work_limits import WorkLimits
from kit.rpc import request_context
from tests.logs import own_warnings
from tests.unit.gateway.graphql.policies import new_policy
from wallet.errors import InternalError, Unavailable

OFFERS = (JSON, GRAPHQL_RESPONSE, EVENT_STREAM)
BATCH_LIMIT = 3


class Notes(Context):
    """Context in which the resolvers below record what they do."""

    def __init__(self) -> None:
        service: Any = None  # no resolver below calls one
        super().__init__(service, service, service, service, RateLimiter(RateLimitOptions()))
        self.written: list[str] = []
        self.together = asyncio.Barrier(BATCH_LIMIT)
        self.closed = asyncio.Event()


@strawberry.type
class Query:
    @strawberry.field
    def hello(self, name: str = "world") -> str:
        return f"hello {name}"

    @strawberry.field
    def unavailable(self) -> str | None:
        raise Unavailable("the bank")

    @strawberry.field
    def broken(self) -> str:
        raise KeyError("password=x")

    @strawberry.field
    async def meet(self, info: Info[Notes, None]) -> int:
        """Wait until `BATCH_LIMIT` requests are executed concurrently."""
        async with asyncio.timeout(5):
            await info.context.together.wait()
        return BATCH_LIMIT


@strawberry.type
class Mutation:
    @strawberry.mutation
    def write(self, info: Info[Notes, None], text: str) -> str:
        info.context.written.append(text)
        return text


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, info: Info[Notes, None], to: int) -> AsyncGenerator[int, None]:
        try:
            for number in range(to):
                yield number
        finally:
            info.context.closed.set()

    @strawberry.subscription
    async def wait(self, info: Info[Notes, None]) -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            info.context.closed.set()


schema = GraphSchema(partial(OperationRunner, new_policy()), query=Query, mutation=Mutation, subscription=Subscription)


@pytest.fixture(autouse=True)
def request_id() -> None:
    request_context.current_request.set(request_context.RequestContext("the-request"))


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def app(notes: Notes) -> GraphQLOverHTTP:
    documents = TrustedDocuments(None)
    return GraphQLOverHTTP(
        schema, lambda: notes, documents, asyncio.Event(), WorkLimits(), batch_limit=BATCH_LIMIT, graphiql=True
    )


@pytest.fixture
async def http(app: GraphQLOverHTTP) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        yield http


async def post(http: httpx.AsyncClient, query: str, accept: str = GRAPHQL_RESPONSE, **more: Any) -> httpx.Response:
    return await http.post("/graphql", json={"query": query, **more}, headers={"Accept": accept})


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    """Return the names and data of the events."""
    parsed = []
    for event in response.text.split("\n\n")[:-1]:
        name, data = event.splitlines()
        parsed.append((name.removeprefix("event: "), orjson.loads(data.removeprefix("data: ") or "null")))
    return parsed


def count_errors() -> float:
    """Return the number of INVALID_GRAPHQL errors in the metrics."""
    samples = [sample for metric in OPERATION_ERRORS.collect() for sample in metric.samples]
    return sum(
        each.value for each in samples if each.name.endswith("_total") and each.labels["code"] == "INVALID_GRAPHQL"
    )


class TestNegotiation:
    @pytest.mark.parametrize(
        ("accept", "chosen"),
        [
            ("", JSON),
            ("*/*", JSON),
            ("application/*", JSON),
            ("application/json", JSON),
            ("application/graphql-response+json", GRAPHQL_RESPONSE),
            ("Application/GraphQL-Response+JSON; charset=utf-8, application/json; charset=utf-8", GRAPHQL_RESPONSE),
            ("application/json, application/graphql-response+json", GRAPHQL_RESPONSE),
            ("application/graphql-response+json, application/json;q=0.9", GRAPHQL_RESPONSE),
            ("application/graphql-response+json;q=0.8, application/json", JSON),
            ("application/json, */*;q=0.1", JSON),
            ("application/json;q=0, */*", GRAPHQL_RESPONSE),
            ("text/event-stream", EVENT_STREAM),
            ("application/json;q=0.5, text/event-stream", EVENT_STREAM),
            ("application/json, text/event-stream;q=0.5", JSON),
            ("text/html", ""),
            ("application/json;q=0", ""),
            ("application/json;q=much", ""),
        ],
    )
    def test_media_type_with_the_highest_quality_is_chosen(self, accept: str, chosen: str) -> None:
        assert negotiate(accept, OFFERS) == chosen

    def test_only_the_first_thousand_characters_count(self) -> None:
        assert negotiate(f"{EVENT_STREAM}," + "a/b," * 8_000, OFFERS) == EVENT_STREAM
        assert negotiate("a/b," * 250 + EVENT_STREAM, OFFERS) == ""

    def test_browser_gets_html_where_html_is_offered(self) -> None:
        browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
        assert negotiate(browser, (*OFFERS, HTML)) == HTML
        assert negotiate(browser, OFFERS) == JSON
        assert negotiate("*/*", (*OFFERS, HTML)) == JSON


class TestStatus:
    """Status of each kind of result, in both JSON media types."""

    @pytest.mark.parametrize(
        ("query", "status", "has_data"),
        [
            ("{ hello }", 200, True),
            ("{ hello unavailable }", 294, True),
            ("{ broken }", 294, True),
            ("{", 400, False),
            ("", 400, False),
            ("{ nothing }", 400, False),
            ("query($name: String!) { hello(name: $name) }", 400, False),
            ("query A { hello } query B { hello }", 400, False),
            ("subscription { count(to: 1) }", 400, False),
        ],
    )
    async def test_status_depends_on_the_result_and_the_media_type(
        self, http: httpx.AsyncClient, query: str, status: int, *, has_data: bool
    ) -> None:
        response = await post(http, query)
        assert (response.status_code, "data" in response.json()) == (status, has_data), response.text
        assert response.headers["content-type"] == "application/graphql-response+json; charset=utf-8"
        assert response.headers["vary"] == "Accept"
        legacy = await post(http, query, JSON)
        assert (legacy.status_code, legacy.json()) == (200, response.json())
        assert legacy.headers["content-type"] == "application/json; charset=utf-8"

    async def test_status_is_500_for_an_unexpected_error_before_execution(
        self, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any, **__: Any) -> Any:
            raise KeyError("password=x")

        monkeypatch.setattr(schema, "_get_execute_function", lambda: broken)
        monkeypatch.setattr(CompiledOperation, "execute", broken)
        response = await post(http, "{ hello }")
        assert (response.status_code, response.json()["errors"][0]["message"]) == (500, InternalError().message)


class TestErrors:
    async def test_errors_have_a_code_and_the_request_id_and_hide_internals(self, http: httpx.AsyncClient) -> None:
        for query, code in (
            ("{ unavailable }", "UNAVAILABLE"),
            ("{ broken }", "INTERNAL"),
            ("{ nothing }", "INVALID_GRAPHQL"),
        ):
            (error,) = (await post(http, query)).json()["errors"]
            assert error["extensions"] == {"code": code, "requestId": "the-request"}
            assert "password" not in str(error)


CLIENT_MISTAKES: dict[str, dict[str, Any]] = {
    "unknown operation": {"query": "query A { hello }", "operationName": "B"},
    "unknown operation of several": {"query": "query A { hello } query B { hello }", "operationName": "C"},
    "empty operation name": {"query": "query A { hello }", "operationName": ""},
    "operation name of an anonymous operation": {"query": "{ hello }", "operationName": "A"},
    "no operation name": {"query": "query A { hello } query B { hello }"},
    "anonymous operation beside another": {"query": "{ hello } query B { hello }"},
    "several anonymous operations": {"query": "{ hello } { hello }"},
    "empty query": {"query": ""},
    "only a comment": {"query": "# nothing"},
    "only white space": {"query": " \n"},
    "unused fragment alone": {"query": "fragment F on Query { hello }"},
    "definition of a type": {"query": "type A { b: Int }"},
    "syntax error": {"query": "{ hello"},
    "unknown field": {"query": "{ nothing }"},
    "missing variable": {"query": "query($name: String!) { hello(name: $name) }"},
    "variable of the wrong type": {
        "query": "query($name: String!) { hello(name: $name) }",
        "variables": {"name": ["x"]},
    },
    "missing variable of a subscription": {"query": "subscription($to: Int!) { count(to: $to) }"},
    "variable of a subscription with the wrong type": {
        "query": "subscription($to: Int!) { count(to: $to) }",
        "variables": {"to": "many"},
    },
    "subscription with two root fields": {"query": "subscription { count(to: 1) wait }"},
    "hash without trusted documents": {"documentId": "a" * 64},
}


class TestClientMistakes:
    """An event stream reports an invalid request with the same error as a plain response."""

    @pytest.mark.parametrize("mistake", CLIENT_MISTAKES)
    async def test_event_stream_and_response_have_the_same_typed_error(
        self, http: httpx.AsyncClient, mistake: str
    ) -> None:
        request = CLIENT_MISTAKES[mistake]
        with capture_logs() as logged:
            stream = await http.post("/graphql", json=request, headers={"Accept": EVENT_STREAM})
            plain = await http.post("/graphql", json=request, headers={"Accept": GRAPHQL_RESPONSE})
        assert own_warnings(logged) == []
        codes = {error["extensions"]["code"] for error in plain.json()["errors"]}
        assert codes == {"PERSISTED_QUERY_NOT_SUPPORTED" if "documentId" in request else "INVALID_GRAPHQL"}
        assert plain.status_code == 400
        if not request.get("query", "").startswith("subscription"):  # a plain response refuses each subscription
            response = (
                events(stream)[0][1] if stream.headers["content-type"].startswith(EVENT_STREAM) else stream.json()
            )
            assert response == plain.json()
        else:
            assert events(stream)[0][1]["errors"][0]["extensions"]["code"] == "INVALID_GRAPHQL"
            assert events(stream)[-1] == ("complete", None)

    @pytest.mark.parametrize(
        "body",
        [
            "[]",
            "nonsense",
            '{"query": 1}',
            '{"query": "{ hello }", "variables": []}',
            '{"query": "{ hello }", "extensions": "x"}',
            '{"query": "{ hello }", "operationName": 1}',
        ],
    )
    async def test_malformed_request_is_refused_before_a_stream_starts(
        self, http: httpx.AsyncClient, body: str
    ) -> None:
        headers = {"Content-Type": JSON, "Accept": EVENT_STREAM}
        stream = await http.post("/graphql", content=body, headers=headers)
        plain = await http.post("/graphql", content=body, headers={**headers, "Accept": JSON})
        assert (stream.status_code, plain.status_code) == (400, 400)
        assert stream.json() == plain.json()
        assert stream.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"

    @pytest.mark.parametrize("accept", [JSON, EVENT_STREAM])
    async def test_each_mistake_is_counted_once(self, http: httpx.AsyncClient, accept: str) -> None:
        for query in ("", "{ hello", "subscription { count }", "query A { hello } query B { hello }"):
            before = count_errors()
            await post(http, query, accept)
            assert count_errors() == before + 1, query

    async def test_subscription_that_is_refused_is_counted_once(self, http: httpx.AsyncClient) -> None:
        before = count_errors()
        await post(http, "subscription { count(to: 1) }")
        assert count_errors() == before + 1


class TestPost:
    @pytest.mark.parametrize(
        "body",
        [
            "",
            "nonsense",
            '{"query": "{ hello }"',
            '"{ hello }"',
            "null",
            "{}",
            '{"query": null}',
            '{"query": ["{ hello }"]}',
            '{"query": "{ hello }", "variables": []}',
            '{"query": "{ hello }", "variables": "{}"}',
            '{"query": "{ hello }", "operationName": 1}',
            '{"query": "{ hello }", "extensions": "x"}',
        ],
    )
    async def test_malformed_request_is_refused(self, http: httpx.AsyncClient, body: str) -> None:
        response = await http.post("/graphql", content=body, headers={"Content-Type": "application/json"})
        (error,) = response.json()["errors"]
        assert (response.status_code, error["extensions"]) == (400, {"code": "BAD_REQUEST", "requestId": "the-request"})

    async def test_null_members_and_unknown_members_are_accepted(self, http: httpx.AsyncClient) -> None:
        response = await post(http, "{ hello }", variables=None, operationName=None, extensions=None, id="unknown")
        assert (response.status_code, response.json()) == (200, {"data": {"hello": "hello world"}})

    async def test_operation_name_selects_the_operation(self, http: httpx.AsyncClient) -> None:
        query = "query A { a: hello } query B($name: String!) { b: hello(name: $name) }"
        response = await post(http, query, operationName="B", variables={"name": "you"})
        assert response.json() == {"data": {"b": "hello you"}}

    @pytest.mark.parametrize(
        "content_type",
        [
            None,
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonx",
        ],
    )
    async def test_content_type_that_a_form_can_send_is_refused(
        self, http: httpx.AsyncClient, notes: Notes, content_type: str | None
    ) -> None:
        request = http.build_request("POST", "/graphql", json={"query": 'mutation { write(text: "x") }'})
        del request.headers["content-type"]
        if content_type:
            request.headers["content-type"] = content_type
        response = await http.send(request)
        assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        )
        assert notes.written == []

    async def test_large_body_without_a_token_is_refused(self, http: httpx.AsyncClient) -> None:
        response = await post(http, "{ hello }" + " " * 17_000)
        assert response.status_code == 413
        assert response.json()["errors"][0]["extensions"]["code"] == "CONTENT_TOO_LARGE"

    async def test_body_in_several_messages_is_joined(self, app: GraphQLOverHTTP) -> None:
        body = orjson.dumps({"query": "{ hello }"})
        pieces = [{"type": "http.request", "body": body[at : at + 5], "more_body": True} for at in range(0, 20, 5)]
        sent = await conversation(app, [*pieces, {"type": "http.request", "body": body[20:]}])
        assert sent[1]["body"] == b'{"data":{"hello":"hello world"}}'

    async def test_client_disconnect_before_the_end_of_the_body_has_no_response(
        self, app: GraphQLOverHTTP, notes: Notes
    ) -> None:
        body = orjson.dumps({"query": 'mutation { write(text: "x") }'})
        first_part = {"type": "http.request", "body": body, "more_body": True}
        assert await conversation(app, [first_part, {"type": "http.disconnect"}]) == []
        assert notes.written == []


class TestGet:
    async def test_get_reads_the_request_from_the_query_string(self, http: httpx.AsyncClient) -> None:
        params = {"query": "query A($name: String!) { hello(name: $name) }", "variables": '{"name": "you"}'}
        response = await http.get("/graphql", params=params | {"operationName": "A", "extensions": ""})
        assert response.json() == {"data": {"hello": "hello you"}}

    @pytest.mark.parametrize("query", ["", " "])
    async def test_empty_query_gets_the_same_error_as_by_post(self, http: httpx.AsyncClient, query: str) -> None:
        headers = {"Accept": GRAPHQL_RESPONSE}
        got = await http.get("/graphql", params={"query": query}, headers=headers)
        posted = await http.post("/graphql", json={"query": query}, headers=headers)
        assert (got.status_code, got.json()) == (posted.status_code, posted.json())

    @pytest.mark.parametrize("accept", [JSON, GRAPHQL_RESPONSE])
    async def test_mutation_by_get_is_refused(self, http: httpx.AsyncClient, notes: Notes, accept: str) -> None:
        params = {"query": 'mutation { write(text: "x") }'}
        response = await http.get("/graphql", params=params, headers={"Accept": accept})
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        assert notes.written == []

    async def test_mutation_by_get_gets_the_same_error_as_an_event_stream(
        self, http: httpx.AsyncClient, notes: Notes
    ) -> None:
        params = {"query": 'mutation { write(text: "x") }'}
        stream = events(await http.get("/graphql", params=params, headers={"Accept": EVENT_STREAM}))
        (error,) = stream[0][1]["errors"]
        assert (error["message"], error["extensions"]["code"]) == ("send mutations by POST", "METHOD_NOT_ALLOWED")
        assert stream == [("next", (await http.get("/graphql", params=params)).json()), ("complete", None)]
        assert notes.written == []

    @pytest.mark.parametrize(
        "params", [{}, {"query": "{ hello }", "variables": "nonsense"}, {"query": "{ hello }", "variables": "[]"}]
    )
    async def test_malformed_query_string_is_refused(self, http: httpx.AsyncClient, params: dict[str, str]) -> None:
        assert (await http.get("/graphql", params=params)).status_code == 400

    @pytest.mark.parametrize("name", ["query", "variables", "operationName"])
    async def test_parameter_that_is_given_twice_is_refused(self, http: httpx.AsyncClient, name: str) -> None:
        response = await http.get(f"/graphql?query={{hello}}&{name}=x&{name}=y&x=1&x=2")
        assert response.status_code == 400
        assert response.json()["errors"][0]["message"] == f"`{name}` is given twice: send it once"

    async def test_browser_gets_graphiql(self, http: httpx.AsyncClient) -> None:
        browser = {"Accept": "text/html,*/*;q=0.8"}
        assert "graphiql" in (await http.get("/graphql", headers=browser)).text
        assert (await http.get("/graphql", params={"query": "{ hello }"}, headers=browser)).json()["data"]


class TestRefusal:
    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
    async def test_unsupported_method_is_refused(self, http: httpx.AsyncClient, method: str) -> None:
        response = await http.request(method, "/graphql", json={"query": "{ hello }"})
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD, POST")

    async def test_request_that_accepts_no_offered_media_type_is_refused(
        self, http: httpx.AsyncClient, notes: Notes
    ) -> None:
        response = await post(http, 'mutation { write(text: "x") }', "application/xml")
        assert (response.status_code, response.headers["content-type"]) == (406, "application/json; charset=utf-8")
        assert notes.written == []


class TestBatch:
    async def test_batch_is_executed_concurrently_and_its_results_are_in_order(self, http: httpx.AsyncClient) -> None:
        requests = [{"query": f"{{ {name}: meet }}"} for name in "abc"]
        response = await http.post("/graphql", json=requests, headers={"Accept": GRAPHQL_RESPONSE})
        assert (response.status_code, response.headers["content-type"]) == (200, "application/json; charset=utf-8")
        assert response.json() == [{"data": {name: 3}} for name in "abc"]

    async def test_batch_has_a_result_for_each_request(self, http: httpx.AsyncClient, notes: Notes) -> None:
        queries = ("{ nothing }", 'mutation { write(text: "x") }', "subscription { count(to: 1) }")
        wrong, written, stream = (await http.post("/graphql", json=[{"query": query} for query in queries])).json()
        assert set(wrong) == set(stream) == {"errors"}
        assert (written, notes.written) == ({"data": {"write": "x"}}, ["x"])

    @pytest.mark.parametrize("requests", [[], [{"query": "{ hello }"}] * (BATCH_LIMIT + 1), [{"query": 1}], [[]]])
    async def test_malformed_batch_is_refused(self, http: httpx.AsyncClient, requests: list[Any]) -> None:
        assert (await http.post("/graphql", json=requests)).status_code == 400

    async def test_batch_with_an_event_stream_accept_header_is_json(self, http: httpx.AsyncClient) -> None:
        response = await http.post("/graphql", json=[{"query": "{ hello }"}], headers={"Accept": EVENT_STREAM})
        assert (response.status_code, response.json()) == (200, [{"data": {"hello": "hello world"}}])


class TestEventStream:
    async def test_event_stream_has_each_result_and_complete(self, http: httpx.AsyncClient) -> None:
        response = await post(http, "subscription { count(to: 2) }", EVENT_STREAM)
        assert response.headers["content-type"].startswith(EVENT_STREAM)
        assert events(response) == [
            ("next", {"data": {"count": 0}}),
            ("next", {"data": {"count": 1}}),
            ("complete", None),
        ]

    async def test_get_returns_an_event_stream(self, http: httpx.AsyncClient) -> None:
        params = {"query": "subscription { count(to: 1) }"}
        response = await http.get("/graphql", params=params, headers={"Accept": EVENT_STREAM})
        assert events(response)[0] == ("next", {"data": {"count": 0}})

    async def test_head_of_an_event_stream_has_no_events(self, app: GraphQLOverHTTP) -> None:
        sent: list[Any] = []

        async def receive() -> Any:
            pytest.fail("the app waits for a message of the client")

        async def send(message: Any) -> None:
            sent.append(message)

        query_string = b"query=subscription%20%7B%20wait%20%7D"
        headers = [(b"accept", EVENT_STREAM.encode())]
        scope = {"type": "http", "method": "HEAD", "path": "/graphql", "query_string": query_string, "headers": headers}
        async with asyncio.timeout(5):
            await app(scope, receive, send)
        head, body = sent
        assert dict(head["headers"])[b"content-type"].startswith(EVENT_STREAM.encode())
        assert body == {"type": "http.response.body", "body": b""}

    async def test_query_and_request_error_are_events(self, http: httpx.AsyncClient) -> None:
        assert events(await post(http, "{ hello }", EVENT_STREAM))[0] == ("next", {"data": {"hello": "hello world"}})
        ((name, wrong), (end, _)) = events(await post(http, "{ nothing }", EVENT_STREAM))
        assert (name, end) == ("next", "complete")
        assert wrong["errors"][0]["extensions"]["code"] == "INVALID_GRAPHQL"

    async def test_idle_event_stream_has_heartbeats_and_ends_on_disconnect(
        self, app: GraphQLOverHTTP, notes: Notes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(responses, "_HEARTBEAT_SECONDS", 0.01)
        has_heartbeat = asyncio.Event()

        def notice_heartbeat(message: dict[str, Any]) -> None:
            if message.get("body") == b":\n\n":
                has_heartbeat.set()

        async def disconnect() -> dict[str, Any]:
            await has_heartbeat.wait()
            return {"type": "http.disconnect"}

        body = orjson.dumps({"query": "subscription { wait }"})
        async with asyncio.timeout(5):
            sent = await conversation(
                app, [{"type": "http.request", "body": body}, disconnect], notice_heartbeat, EVENT_STREAM
            )
            await notes.closed.wait()
        assert b'{"data":{"wait":1}}' in b"".join(message.get("body", b"") for message in sent)


class TestMultipart:
    """Apollo's multipart subscriptions."""

    ACCEPT = 'multipart/mixed;boundary="graphql";subscriptionSpec=1.0,application/json'

    async def test_multipart_body_has_a_part_for_each_result(self, http: httpx.AsyncClient) -> None:
        response = await post(http, "subscription { count(to: 2) }", self.ACCEPT)
        content_type = 'multipart/mixed; boundary="graphql"; subscriptionSpec="1.0"'
        assert response.headers["content-type"] == content_type
        preamble, *parts, end = response.content.split(b"\r\n--graphql")
        assert (preamble, end) == (b"", b"--\r\n")
        heads, bodies = zip(*(part.split(b"\r\n\r\n") for part in parts), strict=True)
        assert {*heads} == {b"\r\nContent-Type: application/json"}
        assert [orjson.loads(body) for body in bodies] == [{"payload": {"data": {"count": n}}} for n in range(2)]

    async def test_idle_multipart_body_has_empty_parts(
        self, app: GraphQLOverHTTP, notes: Notes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(responses, "_HEARTBEAT_SECONDS", 0.01)
        has_heartbeat = asyncio.Event()

        def notice_heartbeat(message: dict[str, Any]) -> None:
            if message.get("body", b"").endswith(b"\r\n\r\n{}"):
                has_heartbeat.set()

        async def disconnect() -> dict[str, Any]:
            await has_heartbeat.wait()
            return {"type": "http.disconnect"}

        body = orjson.dumps({"query": "subscription { wait }"})
        async with asyncio.timeout(5):
            await conversation(app, [{"type": "http.request", "body": body}, disconnect], notice_heartbeat, self.ACCEPT)
            await notes.closed.wait()

    @pytest.mark.parametrize(
        "accept", ["multipart/mixed;deferSpec=20220824,application/json", f"{JSON},multipart/mixed"]
    )
    async def test_other_multipart_responses_are_not_sent(self, http: httpx.AsyncClient, accept: str) -> None:
        response = await post(http, "{ hello }", accept)
        assert response.headers["content-type"].startswith(JSON)

    async def test_query_with_a_higher_quality_for_json_is_json(self, http: httpx.AsyncClient) -> None:
        response = await post(http, "{ hello }", "multipart/mixed;subscriptionSpec=1.0;q=0.5,application/json")
        assert response.json() == {"data": {"hello": "hello world"}}


async def conversation(
    app: GraphQLOverHTTP, received: list[Any], on_send: Any = lambda _: None, accept: str = JSON
) -> list[dict[str, Any]]:
    """Return the messages that the app sends for a POST.

    Args:
        app: ASGI app.
        received: ASGI messages of the request, or async functions that return them.
        on_send: called with each message that the app sends.
        accept: Accept header.
    """
    pending, sent = iter(received), []

    async def receive() -> Any:
        message = next(pending)
        return await message() if callable(message) else message

    async def send(message: Any) -> None:
        sent.append(message)
        on_send(message)

    headers = [(b"content-type", b"application/json"), (b"accept", accept.encode())]
    scope = {"type": "http", "method": "POST", "path": "/graphql", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return sent
