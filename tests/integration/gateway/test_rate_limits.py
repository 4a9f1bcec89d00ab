"""Rate limits of REST, GraphQL and WebSockets."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.graphql.protection.document_cost import document_cost
from gateway.graphql.protection.limits import Limits
from tests.conftest import Keys
from tests.integration.gateway.gateway_process import run_gateway
from tests.integration.gateway.slow_services import SlowServices
from tests.integration.gateway.websocket_client import connect_as_alice, subscribe

ACCOUNT = "123e4567-e89b-12d3-a456-426614174000"


@pytest.fixture
def gateway_with(slow_target: str, keys: Keys, tmp_path: Path) -> Any:
    """Context manager that runs a gateway with the given settings and yields a client of it."""

    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        async with (
            run_gateway(keys, tmp_path, slow_target, **settings) as url,
            httpx.AsyncClient(base_url=url, trust_env=False) as http,
        ):
            yield http

    return start


def bearer(keys: Keys, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.user(user)}"}


async def test_headers_have_the_remaining_quota_and_429_has_retry_after(gateway_with: Any, keys: Keys) -> None:
    async with gateway_with(gateway_rate_requests="2/hour") as http:
        for remaining in (1, 0):
            response = await http.get("/accounts/not-an-id", headers=bearer(keys, "alice"))
            assert response.status_code == 400
            assert response.headers["RateLimit"].startswith(f'"requests";r={remaining};t=')
            assert response.headers["RateLimit-Policy"] == '"requests";q=2;w=3600'
        response = await http.get("/accounts/not-an-id", headers=bearer(keys, "alice"))
        assert (response.status_code, response.json()["code"]) == (429, "RATE_LIMITED")
        assert response.headers["Content-Type"] == "application/problem+json"
        assert 1 <= int(response.headers["Retry-After"]) <= 3_600
        assert response.headers["RateLimit"].startswith('"requests";r=0;t=')
        assert (await http.get("/accounts/not-an-id", headers=bearer(keys, "bob"))).status_code == 400


@pytest.mark.parametrize("path", ["/accounts", f"/accounts/{ACCOUNT}/operations"])
async def test_large_page_counts_as_several_requests(
    gateway_with: Any, keys: Keys, slow_services: SlowServices, path: str
) -> None:
    slow_services.proceed.set()
    async with gateway_with(gateway_rate_requests="24/hour") as http:
        remaining = []
        for limit in ("1000", "51", "50"):
            response = await http.get(path, params={"limit": limit}, headers=bearer(keys, "alice"))
            assert response.status_code == 200
            remaining.append(response.headers["RateLimit"].partition(";r=")[2].partition(";")[0])
        assert remaining == ["4", "2", "1"]
        refused = await http.get(path, params={"limit": "1000"}, headers=bearer(keys, "alice"))
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
        assert refused.headers["RateLimit"].startswith('"requests";r=0;t=')
        assert "Retry-After" in refused.headers


async def test_quota_is_per_principal_not_per_token(gateway_with: Any, keys: Keys) -> None:
    async with gateway_with(gateway_rate_requests="1/hour") as http:
        first, second = bearer(keys, "alice"), {"Authorization": f"Bearer {keys.user('alice', lifetime_seconds=300)}"}
        assert first != second
        assert (await http.get("/accounts/not-an-id", headers=first)).status_code == 400
        assert (await http.get("/accounts/not-an-id", headers=second)).status_code == 429


async def test_quotas_of_anonymous_requests_and_of_new_websockets_are_per_address(gateway_with: Any) -> None:
    async with gateway_with(gateway_rate_anonymous="2/hour") as http:
        assert [(await http.get(f"/accounts/{ACCOUNT}")).status_code for _ in range(3)] == [401, 401, 429]
        target = str(http.base_url.copy_with(scheme="ws", path="/graphql"))
        for _ in range(2):
            async with connect(target, subprotocols=["graphql-transport-ws"], proxy=None):  # type: ignore[list-item]
                pass
        with pytest.raises(InvalidStatus) as refused:
            await connect(target, subprotocols=["graphql-transport-ws"], proxy=None).__aenter__()  # type: ignore[list-item]
        assert refused.value.response.status_code == 429


async def test_health_probes_are_not_counted(gateway_with: Any) -> None:
    async with gateway_with(gateway_rate_anonymous="1/hour") as http:
        assert [(await http.get("/health/live")).status_code for _ in range(3)] == [200] * 3


async def test_requests_with_an_invalid_token_count_as_anonymous(gateway_with: Any) -> None:
    async with gateway_with(gateway_rate_anonymous="2/hour") as http:
        forged = {"Authorization": "Bearer forged"}
        assert [(await http.get("/me", headers=forged)).status_code for _ in range(3)] == [401, 401, 429]


async def test_each_request_of_a_graphql_batch_is_counted(gateway_with: Any, keys: Keys) -> None:
    async with gateway_with(gateway_rate_requests="4/hour", gateway_rate_anonymous="4/hour") as http:
        for headers in ({}, bearer(keys, "alice")):
            batches = [[{"query": "{ __typename }"}] * size for size in (3, 2, 1)]
            responses = [await http.post("/graphql", json=batch, headers=headers) for batch in batches]
            # The first batch uses three of the four requests. Of the second batch, the middleware counts one request
            # before it reads the body, so nothing is left for the third.
            assert [each.status_code for each in responses] == [200, 429, 429]
            remaining = [each.headers["RateLimit"].partition(";r=")[2].partition(";")[0] for each in responses]
            assert remaining == ["1", "0", "0"]


QUERY = f'{{ account(id: "{ACCOUNT}") {{ balance {{ amount }} }} }}'
QUERY_COST = 21 + document_cost(QUERY, Limits().tokens)


async def test_graphql_operations_are_limited_by_estimated_cost(
    gateway_with: Any, keys: Keys, slow_services: SlowServices
) -> None:
    slow_services.proceed.set()
    async with gateway_with(gateway_rate_cost=f"{QUERY_COST + 1}/hour") as http:
        cached = {"query": "{ __typename }"}
        await http.post("/graphql", json=cached, headers=bearer(keys, "bob"))
        request = {
            "json": {"query": QUERY},
            "headers": bearer(keys, "alice") | {"Accept": "application/graphql-response+json"},
        }
        assert (await http.post("/graphql", **request)).status_code == 200
        refused = await http.post("/graphql", **request)
        assert refused.status_code == 429
        (error,) = refused.json()["errors"]
        assert error["extensions"]["code"] == "RATE_LIMITED"
        assert 1 <= error["extensions"]["retryAfter"] <= 3_600
        response = await http.post("/graphql", json=cached, headers=bearer(keys, "alice"))
        assert response.json() == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize("caller", ["alice", None])
async def test_documents_that_are_not_valid_are_charged_in_every_kind_of_request(
    gateway_with: Any, keys: Keys, caller: str | None
) -> None:
    document = "{ wrong }"
    rate = f"{document_cost(document, Limits().tokens)}/hour"
    headers = bearer(keys, caller) if caller else {}
    events = headers | {"Accept": "text/event-stream"}
    requests: tuple[tuple[str, dict[str, Any]], ...] = (
        ("POST", {"json": {"query": document}, "headers": headers}),
        ("GET", {"params": {"query": document}, "headers": headers}),
        ("POST", {"json": [{"query": document}] * 2, "headers": headers}),
        ("POST", {"json": {"query": document}, "headers": events}),
    )
    for method, request in requests:
        async with gateway_with(gateway_rate_cost=rate, gateway_rate_anonymous_cost=rate) as http:
            texts = [(await http.request(method, "/graphql", **request)).text for _ in range(2)]
            assert "".join(texts).count("INVALID_GRAPHQL") == 1
            assert "RATE_LIMITED" in texts[1]


async def test_websocket_operations_are_limited_by_estimated_cost(gateway_with: Any, keys: Keys) -> None:
    async with (
        gateway_with(gateway_rate_cost="20/hour") as http,
        connect_as_alice(str(http.base_url).rstrip("/"), keys) as socket,
    ):
        await subscribe(socket, QUERY)
        response = json.loads(await socket.recv())
        assert (response["type"], response["payload"][0]["extensions"]["code"]) == ("error", "RATE_LIMITED")


async def test_documents_that_are_not_valid_are_charged_on_a_websocket(gateway_with: Any, keys: Keys) -> None:
    document = "subscription { wrong }"
    async with (
        gateway_with(gateway_rate_cost=f"{document_cost(document, Limits().tokens)}/hour") as http,
        connect_as_alice(str(http.base_url).rstrip("/"), keys) as socket,
    ):
        codes = []
        for _ in range(2):
            await subscribe(socket, document)
            codes.append(json.loads(await socket.recv())["payload"][0]["extensions"]["code"])
        assert codes == ["INVALID_GRAPHQL", "RATE_LIMITED"]


async def test_each_websocket_message_is_counted_as_a_request(gateway_with: Any, keys: Keys) -> None:
    async with (
        gateway_with(gateway_rate_requests="2/hour") as http,
        connect_as_alice(str(http.base_url).rstrip("/"), keys) as socket,
    ):
        for id_ in ("1", "2", "3"):
            await subscribe(socket, "{ __typename }", id_)
        responses = [json.loads(await socket.recv()) for _ in range(5)]
        refused = [response for response in responses if response["type"] == "error"]
        assert [(each["id"], each["payload"][0]["extensions"]["code"]) for each in refused] == [("3", "RATE_LIMITED")]
        await socket.send(json.dumps({"type": "ping"}))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
