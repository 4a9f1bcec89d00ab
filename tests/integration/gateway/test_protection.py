"""Protection of the graph: cost, production mode, trusted documents, limits, metrics and logs of operations."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prometheus_client import REGISTRY

from tests.conftest import Keys
from tests.integration.gateway.fake_services import ACCOUNT, FakeBank, FakeCard
from tests.integration.gateway.gateway_process import Gateway, run_gateway
from tests.integration.gateway.slow_services import SlowServices
from tests.integration.gateway.websocket_client import connect_as_alice, subscribe
from tests.waiting import until
from wallet.graph import PAGE_COST

BALANCE = "query Balance($id: ID!) { account(id: $id) { balance { amount } } }"
TYPENAME = "{ __typename }"
SPEC = {"Accept": "application/graphql-response+json"}


def codes(response: httpx.Response) -> list[str]:
    return [error["extensions"]["code"] for error in response.json()["errors"]]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TestCost:
    async def test_cost_is_in_the_response_headers(self, gateway: Gateway, bank: FakeBank) -> None:
        response = await gateway.http.post("/graphql", json={"query": BALANCE, "variables": {"id": str(ACCOUNT)}})
        assert response.json()["data"] == {"account": {"balance": {"amount": "990.00"}}}
        assert cost(response) == ("21", "21")

    async def test_estimated_cost_depends_on_the_page_size(
        self, gateway: Gateway, bank: FakeBank, card: FakeCard
    ) -> None:
        query = f'{{ account(id: "{ACCOUNT}") {{ topUps(first: 7) {{ edges {{ node {{ id }} }} }} }} }}'
        response = await gateway.http.post("/graphql", json={"query": query})
        assert cost(response) == (str(10 + PAGE_COST + 7 * (7 + 1 + 1 + 1)), str(10 + PAGE_COST))

    async def test_cost_of_a_batch_is_the_sum(self, gateway: Gateway, bank: FakeBank) -> None:
        request = {"query": BALANCE, "variables": {"id": str(ACCOUNT)}}
        assert cost(await gateway.http.post("/graphql", json=[request] * 3)) == ("63", "63")

    async def test_operations_of_one_array_share_the_maximum_cost(self, gateway: Gateway, bank: FakeBank) -> None:
        query = "query($id: ID!) { account(id: $id) { operations(first: 1000) { edges { node { id } } } } }"
        request = {"query": query, "variables": {"id": str(uuid4())}}
        responses = (await gateway.http.post("/graphql", json=[request] * 4)).json()
        codes = [each["errors"][0]["extensions"]["code"] for each in responses if "errors" in each]
        assert codes == ["GRAPHQL_COST_EXCEEDED"]  # each costs 10,510

    async def test_operation_above_the_maximum_cost_is_not_executed(self, gateway: Gateway, bank: FakeBank) -> None:
        query = "query($id: ID!, $n: Int!) { account(id: $id) { operations(first: $n) { edges { node { id } } } } }"
        request = {"query": query, "variables": {"id": str(ACCOUNT), "n": 10_000}}
        response = await gateway.http.post("/graphql", json=request, headers=SPEC)
        assert response.status_code == 400
        assert "data" not in response.json()
        (error,) = response.json()["errors"]
        assert error["extensions"] | {"requestId": ""} == {
            "code": "GRAPHQL_COST_EXCEEDED",
            "estimated": 100_510,
            "allowed": 32_000,
            "requestId": "",
        }
        assert "100510" in error["message"]
        assert cost(response) == ("100510", "0")
        assert bank.requests == []

    async def test_variable_of_many_fields_is_charged_at_each_use(self, gateway: Gateway, bank: FakeBank) -> None:
        pages = " ".join(f"a{n}: operations(first: 1, filter: {{ types: $t }}) {{ isComplete }}" for n in range(20))
        query = f"query($t: [OperationType!]) {{ accounts(first: 1) {{ edges {{ node {{ {pages} }} }} }} }}"
        request = {"query": query, "variables": {"t": ["TOP_UP"] * 6_000}}
        response = await gateway.http.post("/graphql", json=request)
        assert codes(response) == ["GRAPHQL_COST_EXCEEDED"]
        assert bank.requests == []

    async def test_page_above_the_maximum_size_is_refused(self, gateway: Gateway) -> None:
        query = f'{{ account(id: "{ACCOUNT}") {{ operations(first: 1001) {{ edges {{ cursor }} }} }} }}'
        response = await gateway.http.post("/graphql", json={"query": query})
        assert codes(response) == ["INVALID_INPUT"]


def cost(response: httpx.Response) -> tuple[str, str]:
    return response.headers["X-GraphQL-Cost-Estimated"], response.headers["X-GraphQL-Cost-Actual"]


class TestProduction:
    @pytest.fixture
    async def production(self, slow_target: str, keys: Keys, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
        async with (
            run_gateway(keys, tmp_path, slow_target, production=True) as url,
            httpx.AsyncClient(base_url=url, trust_env=False) as http,
        ):
            yield http

    async def test_introspection_is_off_in_production(self, production: httpx.AsyncClient) -> None:
        for query in ("{ __schema { queryType { name } } }", '{ __type(name: "Account") { name } }'):
            response = await production.post("/graphql", json={"query": query})
            assert set(codes(response)) == {"INVALID_GRAPHQL"}
            assert "data" not in response.json()
        assert (await production.post("/graphql", json={"query": TYPENAME})).json() == {"data": {"__typename": "Query"}}

    @pytest.mark.parametrize(
        ("query", "variables"),
        [
            ("{ acount }", {}),
            ('{ account(ident: "x") { id } }', {}),
            ("{ ...F } fragment F on account { id }", {}),
            (
                "mutation($input: TransferMoneyInput!) { transferMoney(input: $input) { __typename } }",
                {"input": {"amuont": 1}},
            ),
        ],
    )
    async def test_errors_have_no_suggestions_in_production(
        self, production: httpx.AsyncClient, http: httpx.AsyncClient, query: str, variables: dict[str, Any]
    ) -> None:
        request = {"query": query, "variables": variables}
        assert "did you mean `" in (await http.post("/graphql", json=request)).text
        response = await production.post("/graphql", json=request)
        assert "did you mean" not in response.text
        assert set(codes(response)) == {"INVALID_GRAPHQL"}

    async def test_graphiql_is_off_in_production(self, production: httpx.AsyncClient, http: httpx.AsyncClient) -> None:
        headers = {"Accept": "text/html"}
        assert "GraphiQL" in (await http.get("/graphql", headers=headers)).text
        assert (await production.get("/graphql", headers=headers)).status_code == 406


class TestTrustedDocuments:
    @pytest.fixture
    async def trusted(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
    ) -> AsyncIterator[httpx.AsyncClient]:
        slow_services.proceed.set()
        manifest = tmp_path / "documents.json"
        manifest.write_text(json.dumps({sha256(text): text for text in (BALANCE, TYPENAME)}))
        headers = {"Authorization": f"Bearer {keys.user('alice')}"}
        async with (
            run_gateway(keys, tmp_path, slow_target, gateway_graphql_trusted_documents=manifest) as url,
            httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as http,
        ):
            yield http

    @pytest.mark.parametrize(
        "selector",
        [
            {"documentId": sha256(BALANCE)},
            {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": sha256(BALANCE)}}},
            {"query": BALANCE},
            {"query": "{ ignored }", "documentId": sha256(BALANCE)},
        ],
        ids=["documentId", "persistedQuery", "its text", "its hash and another text"],
    )
    async def test_trusted_document_is_executed(self, trusted: httpx.AsyncClient, selector: dict[str, Any]) -> None:
        response = await trusted.post("/graphql", json={**selector, "variables": {"id": str(ACCOUNT)}})
        assert response.json() == {"data": {"account": {"balance": {"amount": "990.00"}}}}

    async def test_trusted_document_is_executed_by_get(self, trusted: httpx.AsyncClient) -> None:
        persisted = {"extensions": json.dumps({"persistedQuery": {"version": 1, "sha256Hash": sha256(TYPENAME)}})}
        for params in (persisted, {"documentId": sha256(TYPENAME)}):
            assert (await trusted.get("/graphql", params=params)).json() == {"data": {"__typename": "Query"}}

    @pytest.mark.parametrize(
        ("selector", "code"),
        [
            ({"documentId": sha256("{ other }")}, "PERSISTED_QUERY_NOT_FOUND"),
            ({"extensions": {"persistedQuery": {"sha256Hash": "x"}}}, "PERSISTED_QUERY_NOT_FOUND"),
            ({"query": BALANCE, "documentId": "x"}, "PERSISTED_QUERY_NOT_FOUND"),
            ({"query": BALANCE + " "}, "PERSISTED_QUERY_ONLY"),
            ({"query": "{"}, "PERSISTED_QUERY_ONLY"),
        ],
    )
    async def test_untrusted_document_is_refused(
        self, trusted: httpx.AsyncClient, selector: dict[str, Any], code: str
    ) -> None:
        response = await trusted.post("/graphql", json=selector, headers=SPEC)
        assert (response.status_code, codes(response)) == (400, [code])
        stream = await trusted.post("/graphql", json=selector, headers={"Accept": "text/event-stream"})
        assert (stream.status_code, codes(stream)) == (400, [code])
        batch = await trusted.post("/graphql", json=[selector, {"query": TYPENAME}])
        assert [each.get("data") for each in batch.json()] == [None, {"__typename": "Query"}]

    async def test_untrusted_document_is_refused_on_a_websocket(self, trusted: httpx.AsyncClient, keys: Keys) -> None:
        async with connect_as_alice(str(trusted.base_url), keys) as connection:
            await subscribe(connection, None, documentId=sha256(TYPENAME))
            assert json.loads(await connection.recv())["payload"]["data"] == {"__typename": "Query"}
            assert json.loads(await connection.recv())["type"] == "complete"
            await subscribe(connection, "{ topUp(id: 1) { id } }")
            refused = json.loads(await connection.recv())
            assert refused["type"] == "error"
            assert refused["payload"][0]["extensions"]["code"] == "PERSISTED_QUERY_ONLY"

    async def test_hash_is_refused_without_trusted_documents(self, http: httpx.AsyncClient) -> None:
        response = await http.post("/graphql", json={"documentId": sha256(TYPENAME)}, headers=SPEC)
        assert (response.status_code, codes(response)) == (400, ["PERSISTED_QUERY_NOT_SUPPORTED"])
        both = await http.post("/graphql", json={"query": TYPENAME, "documentId": "whatever"})
        assert both.json() == {"data": {"__typename": "Query"}}

    @pytest.mark.parametrize("selector", [{}, {"documentId": 1}, {"documentId": ""}, {"query": None}])
    async def test_request_without_a_valid_query_or_hash_is_refused(
        self, http: httpx.AsyncClient, selector: dict[str, Any]
    ) -> None:
        response = await http.post("/graphql", json=selector)
        assert (response.status_code, codes(response)) == (400, ["BAD_REQUEST"])


class TestLimits:
    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("{" + " __typename" * 2_000 + "}", "GRAPHQL_TOKENS_EXCEEDED"),
            ("{ a " * 13 + "}" * 13, "GRAPHQL_DEPTH_EXCEEDED"),
            ("{" + " a" * 21 + "}", "GRAPHQL_ROOT_FIELDS_EXCEEDED"),
            ("{ a {" + " b" * 500 + "} }", "GRAPHQL_FIELDS_EXCEEDED"),
            ("{ a {" + " x: b" * 51 + "} }", "GRAPHQL_ALIASES_EXCEEDED"),
            ("{ a" + " @x" * 51 + " }", "GRAPHQL_DIRECTIVES_EXCEEDED"),
            ("{ a {" + " b" * 26 + "} }", "GRAPHQL_REPEATS_EXCEEDED"),
        ],
    )
    async def test_document_above_a_default_limit_is_refused(
        self, http: httpx.AsyncClient, query: str, code: str
    ) -> None:
        assert codes(await http.post("/graphql", json={"query": query})) == [code]

    async def test_batch_of_more_than_ten_requests_is_refused(self, http: httpx.AsyncClient) -> None:
        assert (await http.post("/graphql", json=[{"query": TYPENAME}] * 10)).status_code == 200
        assert (await http.post("/graphql", json=[{"query": TYPENAME}] * 11)).status_code == 400

    async def test_max_cost_setting_is_the_limit_of_the_estimated_cost(
        self, slow_target: str, keys: Keys, tmp_path: Path
    ) -> None:
        query = '{ account(id: "") { topUps(first: 1) { __typename } } }'
        async with (
            run_gateway(keys, tmp_path, slow_target, gateway_graphql_max_cost=3) as url,
            httpx.AsyncClient(base_url=url, trust_env=False) as http,
        ):
            assert codes(await http.post("/graphql", json={"query": query})) == ["GRAPHQL_COST_EXCEEDED"]


class TestOperationMetrics:
    async def test_request_log_has_operations_without_their_content(self, gateway: Gateway, bank: FakeBank) -> None:
        name = "ForTheLog"
        query = f'query {name} {{ account(id: "{ACCOUNT}") {{ balance {{ amount }} operations {{ __typename }} }} }}'
        await gateway.http.post("/graphql", json={"query": query, "variables": {"secret": "s3cr3t"}})

        async def log_entry() -> dict[str, Any]:
            return next((json.loads(line) for line in gateway.log_lines if name in line), {})

        entry = await until(log_entry)
        assert (entry["event"], entry["path"], entry["status"]) == ("request completed", "/graphql", 200)
        (operation,) = entry["operations"]
        assert operation.pop("ms") >= 0
        assert operation == {"type": "query", "name": name, "errors": ["UNAVAILABLE"]}
        assert not [line for line in gateway.log_lines if "s3cr3t" in line or "__typename" in line]

    async def test_operation_on_a_websocket_has_its_own_log_line(self, gateway: Gateway, keys: Keys) -> None:
        async with connect_as_alice(gateway.url, keys) as connection:
            await subscribe(connection, "query ByWebSocket { __typename }")

            async def log_entry() -> dict[str, Any]:
                return next((json.loads(line) for line in gateway.log_lines if "ByWebSocket" in line), {})

            entry = await until(log_entry)  # the connection is still open
            assert {key: entry[key] for key in ("event", "type", "name", "errors")} == {
                "event": "operation completed",
                "type": "query",
                "name": "ByWebSocket",
                "errors": [],
            }

    async def test_operations_are_counted_by_type_and_name_with_their_errors(
        self, http: httpx.AsyncClient, slow_services: SlowServices
    ) -> None:
        slow_services.proceed.set()
        labels = {"type": "query", "name": "Counted"}
        query = BALANCE.replace("Balance", "Counted")
        for id_ in (str(ACCOUNT), "none"):
            await http.post("/graphql", json={"query": query, "variables": {"id": id_}})
        assert seconds(**labels) == 2
        await http.post("/graphql", json={"query": query})
        assert seconds(**labels) == 3
        assert errors(**labels, code="INVALID_GRAPHQL") == 1

    async def test_refused_operation_is_counted(self, http: httpx.AsyncClient) -> None:
        refused = {"type": "not read", "name": "other", "code": "GRAPHQL_ROOT_FIELDS_EXCEEDED"}
        before = errors(**refused) or 0
        await http.post("/graphql", json={"query": "query TooMuch {" + " __typename" * 21 + "}"})
        assert errors(**refused) == before + 1

    async def test_operation_of_a_disconnected_client_is_cancelled(
        self, http: httpx.AsyncClient, slow_services: SlowServices
    ) -> None:
        request = {"query": BALANCE.replace("Balance", "GivenUp"), "variables": {"id": str(ACCOUNT)}}
        pending = asyncio.create_task(http.post("/graphql", json=request))
        await slow_services.started.get()
        pending.cancel()

        async def is_counted() -> bool:
            return errors(type="query", name="GivenUp", code="CANCELLED") == 1

        await until(is_counted)

    async def test_subscription_of_a_disconnected_client_ends_without_an_error(
        self, url: str, keys: Keys, slow_services: SlowServices
    ) -> None:
        labels = {"type": "subscription", "name": "Watched"}
        async with connect_as_alice(url, keys) as connection:
            await subscribe(connection, f'subscription Watched {{ topUpUpdated(id: "{ACCOUNT}") {{ id }} }}')
            await slow_services.started.get()

        async def is_counted() -> bool:
            return seconds(**labels) == 1

        await until(is_counted)
        assert errors(**labels, code="CANCELLED") is None


def seconds(**labels: str) -> float | None:
    return REGISTRY.get_sample_value("wallet_gateway_operation_duration_seconds_count", labels)


def errors(**labels: str) -> float | None:
    return REGISTRY.get_sample_value("wallet_gateway_operation_errors_total", labels)
