"""No response of the gateway to invalid input of many kinds contains texts of libraries."""

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.graphql.transport.close_reasons import REASONS
from gateway.http.problem_types import PROBLEM_TYPES
from tests.integration.gateway.fake_services import ACCOUNT, FakeBank, FakeCard
from tests.integration.gateway.gateway_process import Gateway

LIBRARY_WORDS = (
    *("Input should", "Extra inputs", "Field required", "String should", "Value error", "unable to", "Assertion"),
    *("JSON decode", "Expecting", "Expected ", "line 1 column", "errors.pydantic", "ctx", "_error", "parsing"),
    *("Cannot query", "Unknown ", "Variable ", "got invalid", "cannot represent", "Syntax Error", "Must provide"),
    *("Method Not Allowed", "Not Found", "Bad Request", "Unprocessable", "Internal Server", "Not Acceptable"),
    *("Traceback", "Exception", "Error'", "<class", "RpcError", "aiortc", "StatusCode", "0x", "NoneType", "python"),
    *("Subscription init", "Connection init", "Too many init", "Subscriber for", "Unauthorized", "Forbidden"),
    *("DecodeError", "Not enough segments", "Signature", "expired_token", "bad_signature", "joserfc", "BadSig"),
    *("[0-9]", r"\x21", "[A-Z"),
)
"""Phrases of pydantic, Starlette, graphql-core, Strawberry, grpc and Python, and parts of regular expressions."""

OPERATIONS = f"/accounts/{ACCOUNT}/operations"
TRANSFERS = f"/accounts/{ACCOUNT}/transfers"
TOP_UP = f"/accounts/{ACCOUNT}/topup"

QUERIES = (
    *(
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=",
        "limit=1.5",
        "limit=1_0",
        "limit=1.0",
        "limit=99999999999999999999",
        "limit=1&limit=2",
    ),
    *("type=GIFT", "type=", "type[]=TOP_UP", "direction=UP", "counterpartyId=42", "minAmount=1e3", "minamount=500"),
    *(
        "from=yesterday",
        "from=2026-01-01",
        "from=1",
        "from=2026-01-01T00:00:00+03:00",
        "from=2026-01-01T00:00:00",
        "to=2026-13-01T00:00:00Z",
    ),
    *("after=x", "before=x", "after=" + "x" * 129, "4242424242424242=1", "%ff=%ff"),
)
CARD = {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2031, "cvv": "123"}
NO_TRANSFERS: tuple[Any, ...] = ({}, [], None, 1, "x", {"amount": 1}, {"amount": "1e3", "recipientId": "x"})
BODIES: tuple[tuple[str, Any], ...] = (
    *((TRANSFERS, body) for body in NO_TRANSFERS),
    *((TRANSFERS, {"amount": "1", "recipientId": str(ACCOUNT), "currency": code}) for code in ("rub", "XXX", 1)),
    (TRANSFERS, {"amount": "1", "recipientId": str(ACCOUNT), "x": 1}),
    *((TOP_UP, {"amount": "1", "card": card}) for card in ({}, None, "x", CARD | {"x": 1}, CARD | {"cvv": "abc"})),
    *((TOP_UP, {"amount": "1", "card": CARD | {"expiryMonth": month}}) for month in (0, 13, "1", 1.5, None, 10**30)),
    ("/accounts", {"currency": None}),
    *(("/auth/login", body) for body in ({}, {"username": "a b", "password": "x"}, {"username": 1, "password": 1})),
    *(("/auth/refresh", body) for body in ({}, {"refreshToken": ""}, {"refreshToken": "x" * 300})),
    ("/auth/login", {"username": "alice", "password": "correct horse battery"}),  # identity is not available
)
DOCUMENTS: tuple[tuple[str, Any], ...] = (
    *((text, None) for text in ("", "{", "{ x(", "}", "query { me { nope } }", "{ me }", "fragment F on User { id }")),
    *(
        (text, None)
        for text in ("{ me { ...F } }", "query A { me { id } } query A { me { id } }", "subscription { me }")
    ),
    ('{ account(id: "1") { statistics(from: "x", to: 1, granularity: YEAR) { cursor } } }', None),
    (f'{{ account(id: "{ACCOUNT}") {{ operations(first: 0) {{ isComplete }} }} }}', None),
    (f'{{ account(id: "{ACCOUNT}") {{ topUps(first: 1, last: 1) {{ edges {{ cursor }} }} }} }}', None),
    ("query($i: ID!) { account(id: $i) { id } }", {}),
    ("query($i: ID!) { account(id: $i) { id } }", {"i": {"x": 1}}),
    ("query($i: Int) { accounts(first: $i) { edges { cursor } } }", {"i": "x"}),
    ("mutation($i: TransferMoneyInput!) { transferMoney(input: $i) { ... on Error { message } } }", {"i": {"a": 1}}),
    ("{ me { username } }", None),  # identity is not available
)
MESSAGES: tuple[Any, ...] = (
    *("x", "[]", "1", "{}", '{"type": 1}', '{"type": "nope"}', '{"type": "subscribe", "id": "1"}', b"\x00"),
    '{"type": "connection_init", "payload": 1}',
    '{"type": "subscribe", "id": "1", "payload": {"query": "{ me { id } }"}}',
    '{"type": "connection_init", "payload": {"authorization": "Bearer x"}}',
)


AUTHORIZATIONS = ("", "x", "Bearer", "Bearer x", "bearer a.b.c", "Basic eDp5", "Bearer " + "x" * 9_000)


def assert_no_library_text(text: str, source: object) -> None:
    found = [words for words in LIBRARY_WORDS if words in text]
    assert not found, (source, found, text)


def assert_problem(response: httpx.Response, source: object) -> None:
    assert_no_library_text(response.text, source)
    problem = response.json()
    type_ = PROBLEM_TYPES[problem["code"]]
    assert (problem["type"], problem["title"], problem["status"]) == (type_.uri, type_.title, response.status_code), (
        source
    )
    assert problem["detail"], source


async def read_to_the_end(connection: ClientConnection) -> tuple[list[str], str]:
    """Return the messages until the connection is closed, and the close reason."""
    messages: list[str] = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(str(await connection.recv()))
    return messages, connection.close_reason or ""


class TestREST:
    @pytest.mark.parametrize("query", QUERIES)
    async def test_response_to_an_invalid_query_parameter_has_no_library_text(
        self, gateway: Gateway, query: str
    ) -> None:
        response = await gateway.http.get(f"{OPERATIONS}?{query}")
        assert response.status_code == 400
        assert_problem(response, query)
        assert "4242" not in response.text.replace(response.json()["requestId"], "")  # random digits

    async def test_responses_to_invalid_bodies_have_no_library_text(
        self, gateway: Gateway, bank: FakeBank, card: FakeCard
    ) -> None:
        for path, body in BODIES:
            response = await gateway.http.post(path, json=body, headers={"Idempotency-Key": "k"})
            assert response.status_code in {400, 415, 503, 504}, (path, body, response.text)
            assert_problem(response, (path, body))
            assert ("idempotency key" in response.text) <= (not path.startswith("/auth/")), response.text

    async def test_responses_to_other_refused_requests_have_no_library_text(self, gateway: Gateway) -> None:
        json_type = {"Content-Type": "application/json", "Idempotency-Key": "k"}
        requests: Iterable[tuple[str, str, dict[str, Any]]] = (
            ("POST", TRANSFERS, {"content": b"{", "headers": json_type}),
            ("POST", TRANSFERS, {"content": b"\xff", "headers": json_type}),
            ("POST", TRANSFERS, {"content": b"", "headers": json_type}),
            ("POST", TRANSFERS, {"content": b"{" * 70_000, "headers": json_type}),
            ("POST", TRANSFERS, {"content": b"[" * 60_000, "headers": json_type}),
            ("POST", TRANSFERS, {"content": b"a=1"}),
            ("POST", TRANSFERS, {"json": {}}),
            ("POST", TRANSFERS, {"json": {}, "headers": {"Idempotency-Key": "é".encode()}}),
            ("GET", "/accounts/42", {}),
            ("GET", f"/accounts/{ACCOUNT}/transfers/42", {}),
            ("GET", "/nope", {}),
            ("GET", "/problems/nope", {}),
            ("GET", "/assets/nope", {}),
            ("DELETE", "/accounts", {}),
            ("PUT", "/assets/nope", {}),
            ("GET", "/me", {"params": {"x": 1}}),
            ("GET", "/me", {}),
            *(("GET", "/me", {"headers": {"Authorization": each}}) for each in AUTHORIZATIONS),
        )
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.http.headers, trust_env=False) as http:
            for method, path, options in requests:
                response = await http.request(method, path, **options)
                assert response.status_code >= 400, (method, path)
                assert_problem(response, (method, path, str(options)[:100]))


class TestGraphQL:
    @pytest.mark.parametrize("accept", ["application/json", "application/graphql-response+json", "text/event-stream"])
    async def test_responses_to_invalid_operations_have_no_library_text(
        self, gateway: Gateway, bank: FakeBank, accept: str
    ) -> None:
        for text, variables in DOCUMENTS:
            request = {"query": text, "variables": variables}
            response = await gateway.http.post("/graphql", json=request, headers={"Accept": accept})
            assert_no_library_text(response.text, text)
            assert '"message":"' in response.text, (text, response.text)

    async def test_responses_to_malformed_requests_have_no_library_text(self, gateway: Gateway) -> None:
        for body in (b"{", b"1", b"[]", b'{"query": 1}', b'{"query": "{me{id}}", "variables": 1}', b'{"a":1,"a":2}'):
            headers = {"Content-Type": "application/json"}
            response = await gateway.http.post("/graphql", content=body, headers=headers)
            assert response.status_code == 400
            assert_no_library_text(response.text, body)


class TestWebSocket:
    @pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
    async def test_close_reason_has_no_library_text(self, gateway: Gateway, message: str | bytes) -> None:
        url = f"{gateway.url.replace('http', 'ws')}/graphql"
        async with connect(url, subprotocols=["graphql-transport-ws"]) as connection:  # type: ignore[list-item]
            await connection.send(message)
            messages, reason = await read_to_the_end(connection)
        assert reason
        for each in (reason, *messages):
            assert_no_library_text(each, message)

    async def test_second_connection_init_has_the_gateways_close_reason(self, gateway: Gateway) -> None:
        url = f"{gateway.url.replace('http', 'ws')}/graphql"
        init = json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {gateway.token}"}})
        async with connect(url, subprotocols=["graphql-transport-ws"]) as connection:  # type: ignore[list-item]
            await connection.send(init)
            await connection.recv()
            await connection.send(init)
            messages, reason = await read_to_the_end(connection)
        assert (messages, reason) == ([], REASONS["Too many initialisation requests"])
