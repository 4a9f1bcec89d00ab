"""A call lasts no longer than somebody waits for it: callers' time goes with it, and whoever goes away ends it."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import Keys
from tests.integration.gateway.fake_services import ACCOUNT
from tests.integration.gateway.gateway_process import serving
from tests.integration.gateway.slow_services import Patient
from tests.integration.gateway.websocket_client import connected, subscribe

ACCOUNT_QUERY = f'{{ account(id: "{ACCOUNT}") {{ id operations(first: 1) {{ edges {{ cursor }} }} }} }}'
TRANSFER = f"""mutation {{ transferMoney(
    input: {{ senderId: "{ACCOUNT}", recipientId: "{uuid4()}", amount: "1", idempotencyKey: "k" }}
) {{ __typename }} }}"""
WATCH = f'subscription {{ topUpUpdated(id: "{uuid4()}") {{ id }} }}'
STREAM = {"Accept": "text/event-stream"}
Call = tuple[str, str, Any, dict[str, str]]
CALLS: dict[str, tuple[str, Call]] = {
    "a query": ("BatchGetAccounts", ("POST", "/graphql", {"query": ACCOUNT_QUERY}, {})),
    "a batch": ("BatchGetAccounts", ("POST", "/graphql", [{"query": ACCOUNT_QUERY}] * 2, {})),
    "a mutation": ("TransferMoney", ("POST", "/graphql", {"query": TRANSFER}, {})),
    "server-sent events": ("WatchTopUp", ("POST", "/graphql", {"query": WATCH}, STREAM)),
    "REST by GET": ("GetOperations", ("GET", f"/accounts/{ACCOUNT}/operations", None, {})),
    "REST by POST": (
        "TransferMoney",
        (
            "POST",
            f"/accounts/{ACCOUNT}/transfers",
            {"recipientId": str(uuid4()), "amount": "1", "currency": "RUB"},
            {"Idempotency-Key": "k"},
        ),
    ),
}
"""What is asked of the gateway, each with the call that it makes first."""
STREAMED = "server-sent events"
PATIENCE = 10.0
"""Seconds for what happens at once; whatever is given up by a deadline here is given up later than that."""


async def soon(queue: asyncio.Queue[Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await queue.get()


class TestTime:
    async def test_that_a_caller_has_left_goes_with_each_call(
        self, patient: Patient, patient_services: str, keys: Keys, tmp_path: Path
    ) -> None:
        async with (
            serving(keys, tmp_path, patient_services, gateway_timeout_seconds=5) as url,
            httpx.AsyncClient(trust_env=False, timeout=30) as http,
        ):
            headers = {"Authorization": f"Bearer {keys.user('alice')}"}
            asking = asyncio.create_task(http.post(f"{url}/graphql", json={"query": ACCOUNT_QUERY}, headers=headers))
            method, first = await soon(patient.begun)
            assert method == "BatchGetAccounts"
            assert 4 < first <= 5.1  # the request's 5 seconds, and not the 30 of a call; gRPC rounds up
            await asyncio.sleep(0.2)  # that time goes by is what this is about
            patient.answers.set()
            method, second = await soon(patient.begun)
            assert method == "GetOperations"
            assert 4 < second < first - 0.1
            assert (await asking).json()["data"]["account"]["operations"] == {"edges": []}

    async def test_of_a_stream_is_as_long_as_it_lasts_and_its_calls_have_their_own(
        self, patient: Patient, patient_services: str, keys: Keys, tmp_path: Path
    ) -> None:
        watch = f'subscription {{ topUpUpdated(id: "{uuid4()}") {{ account {{ balance {{ amount }} }} }} }}'
        async with (
            serving(keys, tmp_path, patient_services, gateway_timeout_seconds=5) as url,
            httpx.AsyncClient(trust_env=False, timeout=30) as http,
        ):
            headers = {"Authorization": f"Bearer {keys.user('alice')}", **STREAM}
            async with http.stream("POST", f"{url}/graphql", json={"query": watch}, headers=headers) as answer:
                assert await soon(patient.begun) == ("WatchTopUp", None)
                patient.answers.set()
                method, seconds = await soon(patient.begun)
                assert method == "BatchGetAccounts"
                assert 29 < seconds <= 30.1  # those of a call
                lines = [line async for line in answer.aiter_lines() if line.startswith("data: {")]
                assert "errors" not in json.loads(lines[0].removeprefix("data: "))

    async def test_that_is_up_ends_the_call(
        self, patient: Patient, patient_services: str, keys: Keys, tmp_path: Path
    ) -> None:
        async with (
            serving(keys, tmp_path, patient_services, gateway_timeout_seconds=1) as url,
            httpx.AsyncClient(trust_env=False) as http,
        ):
            headers = {"Authorization": f"Bearer {keys.user('alice')}"}
            answer = await http.post(f"{url}/graphql", json={"query": ACCOUNT_QUERY}, headers=headers)
            assert [error["extensions"]["code"] for error in answer.json()["errors"]] == ["DEADLINE_EXCEEDED"]
            assert await soon(patient.cancelled) == "BatchGetAccounts"

    @pytest.mark.parametrize("name", sorted(CALLS.keys() - {STREAMED}))
    async def test_of_a_request_is_no_more_than_a_request_may_take(
        self, patient: Patient, patient_services: str, keys: Keys, tmp_path: Path, name: str
    ) -> None:
        method, (verb, path, body, headers) = CALLS[name]
        async with (
            serving(keys, tmp_path, patient_services, gateway_timeout_seconds=5) as url,
            httpx.AsyncClient(trust_env=False, timeout=30) as http,
        ):
            headers = {"Authorization": f"Bearer {keys.user('alice')}"} | headers
            asking = asyncio.create_task(http.request(verb, f"{url}{path}", json=body, headers=headers))
            asked, remaining = await soon(patient.begun)
            assert asked == method
            assert 4 < remaining <= 5.1  # as above
            patient.answers.set()
            await asking


class TestStream:
    async def test_ends_at_once_and_whole_when_the_gateway_stops(
        self, patient: Patient, patient_services: str, keys: Keys, tmp_path: Path
    ) -> None:
        stop = asyncio.Event()
        headers = {"Authorization": f"Bearer {keys.user('alice')}", **STREAM}
        async with (
            serving(keys, tmp_path, patient_services, stop=stop) as url,
            httpx.AsyncClient(trust_env=False) as http,
            http.stream("POST", f"{url}/graphql", json={"query": WATCH}, headers=headers) as response,
        ):
            await soon(patient.begun)
            stop.set()
            async with asyncio.timeout(3):  # less than the time that a request has to finish
                assert await response.aread() == b""  # neither cut off nor complete
            assert await soon(patient.cancelled) == "WatchTopUp"

    async def test_ends_with_its_token_and_neither_cut_off_nor_complete(
        self, patient: Patient, patient_services: str, keys: Keys, tmp_path: Path
    ) -> None:
        headers = {"Authorization": f"Bearer {keys.user('alice', lifetime_seconds=2)}", **STREAM}
        async with (
            serving(keys, tmp_path, patient_services) as url,
            httpx.AsyncClient(trust_env=False) as http,
            http.stream("POST", f"{url}/graphql", json={"query": WATCH}, headers=headers) as response,
        ):
            await soon(patient.begun)
            async with asyncio.timeout(5):
                assert await response.aread() == b""  # after which graphql-sse's client connects again
            assert await soon(patient.cancelled) == "WatchTopUp"


class TestWhoGoesAway:
    @pytest.mark.parametrize(("method", "call"), CALLS.values(), ids=CALLS)
    async def test_during_a_request_cancels_what_it_asked_for(
        self, patient: Patient, http: httpx.AsyncClient, method: str, call: Call
    ) -> None:
        verb, path, body, headers = call
        asking = asyncio.create_task(http.request(verb, path, json=body, headers=headers))
        assert (await soon(patient.begun))[0] == method
        asking.cancel()
        assert await soon(patient.cancelled) == method
        assert (await http.get("/health/live")).status_code == 200

    async def test_by_get_cancels_what_it_asked_for(self, patient: Patient, http: httpx.AsyncClient) -> None:
        asking = asyncio.create_task(http.get("/graphql", params={"query": ACCOUNT_QUERY}))
        await soon(patient.begun)
        asking.cancel()
        assert await soon(patient.cancelled) == "BatchGetAccounts"

    async def test_on_a_websocket_cancels_what_it_asked_for(self, patient: Patient, url: str, keys: Keys) -> None:
        async with connected(url, keys) as connection:
            await subscribe(connection, WATCH, "1")
            await subscribe(connection, ACCOUNT_QUERY, "2")
            assert {(await soon(patient.begun))[0] for _ in range(2)} == {"WatchTopUp", "BatchGetAccounts"}
        assert {await soon(patient.cancelled) for _ in range(2)} == {"WatchTopUp", "BatchGetAccounts"}

    async def test_from_one_subscription_cancels_that_one(self, patient: Patient, url: str, keys: Keys) -> None:
        async with connected(url, keys) as connection:
            await subscribe(connection, WATCH, "1")
            await subscribe(connection, ACCOUNT_QUERY, "2")
            assert {(await soon(patient.begun))[0] for _ in range(2)} == {"WatchTopUp", "BatchGetAccounts"}
            await connection.send(json.dumps({"id": "1", "type": "complete"}))
            assert await soon(patient.cancelled) == "WatchTopUp"
            patient.answers.set()
            async with asyncio.timeout(PATIENCE):
                answer = json.loads(await connection.recv())
            assert (answer["id"], answer["type"]) == ("2", "next")
            assert patient.cancelled.empty()
