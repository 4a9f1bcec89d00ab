"""Who asks for too much is told so, and when to come back; others do not notice."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import Keys
from tests.integration.gateway.gateway_process import serving
from tests.integration.gateway.slow_services import Patient
from tests.integration.gateway.websocket_client import connected, subscribe

ACCOUNT = "123e4567-e89b-12d3-a456-426614174000"


@pytest.fixture
def limited(patient_services: str, keys: Keys, tmp_path: Path) -> Any:
    """Starts a gateway of the test's own, with rates of the test's own."""

    @asynccontextmanager
    async def limited(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        async with (
            serving(keys, tmp_path, patient_services, **settings) as url,
            httpx.AsyncClient(base_url=url, trust_env=False) as http,
        ):
            yield http

    return limited


def of(keys: Keys, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.user(user)}"}


async def test_a_caller_is_told_what_is_left_and_then_when_to_come_back(limited: Any, keys: Keys) -> None:
    async with limited(gateway_rate_requests="2/hour") as http:
        for left in (1, 0):
            answer = await http.get("/accounts/not-an-id", headers=of(keys, "alice"))
            assert answer.status_code == 400
            assert answer.headers["RateLimit"].startswith(f'"requests";r={left};t=')
            assert answer.headers["RateLimit-Policy"] == '"requests";q=2;w=3600'
        answer = await http.get("/accounts/not-an-id", headers=of(keys, "alice"))
        assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert 1 <= int(answer.headers["Retry-After"]) <= 3_600
        assert answer.headers["RateLimit"].startswith('"requests";r=0;t=')
        assert (await http.get("/accounts/not-an-id", headers=of(keys, "bob"))).status_code == 400


async def test_a_new_token_does_not_make_a_new_caller(limited: Any, keys: Keys) -> None:
    async with limited(gateway_rate_requests="1/hour") as http:
        first, second = of(keys, "alice"), {"Authorization": f"Bearer {keys.user('alice', lifetime_seconds=300)}"}
        assert first != second
        assert (await http.get("/accounts/not-an-id", headers=first)).status_code == 400
        assert (await http.get("/accounts/not-an-id", headers=second)).status_code == 429


async def test_who_says_nothing_of_themselves_counts_by_their_address(limited: Any) -> None:
    async with limited(gateway_rate_anonymous="2/hour") as http:
        assert [(await http.get(f"/accounts/{ACCOUNT}")).status_code for _ in range(3)] == [401, 401, 429]
        target = str(http.base_url.copy_with(scheme="ws", path="/graphql"))
        with pytest.raises(InvalidStatus) as refused:
            await connect(target, subprotocols=["graphql-transport-ws"], proxy=None).__aenter__()  # type: ignore[list-item]
        assert refused.value.response.status_code == 429


async def test_probes_are_not_counted(limited: Any) -> None:
    async with limited(gateway_rate_anonymous="1/hour") as http:
        assert [(await http.get("/health/live")).status_code for _ in range(3)] == [200] * 3


async def test_so_does_whoever_brings_tokens_that_are_not_believed(limited: Any) -> None:
    async with limited(gateway_rate_anonymous="2/hour") as http:
        forged = {"Authorization": "Bearer forged"}
        assert [(await http.get("/me", headers=forged)).status_code for _ in range(3)] == [401, 401, 429]


async def test_each_request_of_a_batch_is_one(limited: Any, keys: Keys) -> None:
    async with limited(gateway_rate_requests="4/hour", gateway_rate_anonymous="4/hour") as http:
        for headers in ({}, of(keys, "alice")):
            batches = [[{"query": "{ __typename }"}] * size for size in (3, 2, 1)]
            answers = [await http.post("/graphql", json=batch, headers=headers) for batch in batches]
            assert [each.status_code for each in answers] == [200, 429, 429]  # the second one's first was counted


QUERY = f'{{ account(id: "{ACCOUNT}") {{ balance {{ amount }} }} }}'  # costs 2


async def test_the_graph_is_counted_by_what_it_may_cost(limited: Any, keys: Keys, patient: Patient) -> None:
    patient.answers.set()
    async with limited(gateway_rate_cost="3/hour") as http:
        ask = {"json": {"query": QUERY}, "headers": of(keys, "alice") | {"Accept": "application/graphql-response+json"}}
        assert (await http.post("/graphql", **ask)).status_code == 200
        refused = await http.post("/graphql", **ask)
        assert refused.status_code == 429
        (error,) = refused.json()["errors"]
        assert error["extensions"]["code"] == "RATE_LIMITED"
        assert 1 <= error["extensions"]["retryAfter"] <= 3_600
        assert (await http.post("/graphql", json={"query": "{ __typename }"}, headers=of(keys, "alice"))).json() == {
            "data": {"__typename": "Query"}
        }


async def test_so_is_each_operation_on_a_websocket(limited: Any, keys: Keys) -> None:
    async with limited(gateway_rate_cost="1/hour") as http, connected(str(http.base_url).rstrip("/"), keys) as socket:
        await subscribe(socket, QUERY)
        answer = json.loads(await socket.recv())
        assert (answer["type"], answer["payload"][0]["extensions"]["code"]) == ("error", "RATE_LIMITED")


async def test_each_message_on_a_websocket_is_a_request(limited: Any, keys: Keys) -> None:
    async with (
        limited(gateway_rate_requests="2/hour") as http,
        connected(str(http.base_url).rstrip("/"), keys) as socket,
    ):
        for id_ in ("1", "2", "3"):
            await subscribe(socket, "{ __typename }", id_)
        refused = [
            answer for answer in [json.loads(await socket.recv()) for _ in range(5)] if answer["type"] == "error"
        ]
        assert [(each["id"], each["payload"][0]["extensions"]["code"]) for each in refused] == [("3", "RATE_LIMITED")]
        await socket.send(json.dumps({"type": "ping"}))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
