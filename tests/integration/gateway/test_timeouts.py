"""Deadlines and cancellation: calls to services get the remaining time and end when the client disconnects."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prometheus_client import REGISTRY

from tests.clock import ManualClock
from tests.conftest import Keys
from tests.integration.gateway.fake_services import ACCOUNT
from tests.integration.gateway.gateway_process import run_gateway
from tests.integration.gateway.slow_services import SlowServices
from tests.integration.gateway.websocket_client import connect_as_alice, subscribe
from tests.waiting import until

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
"""Requests, each with the first call that the gateway makes for it."""
EVENT_STREAM = "server-sent events"
TEST_TIMEOUT_SECONDS = 10.0
"""Time-out of events that should happen at once. It is below the default deadline of 30 s, so a cancellation within it
was caused by the disconnect.
"""
ROUNDING_SECONDS = 1.0
"""Tolerance of time-outs: gRPC rounds the time-out of a call up."""


async def next_of(queue: asyncio.Queue[Any]) -> Any:
    async with asyncio.timeout(TEST_TIMEOUT_SECONDS):
        return await queue.get()


def count_requests(route: str) -> dict[str, float]:
    """Return the number of POST requests of a route by the class of their status."""
    name = "wallet_gateway_request_duration_seconds_count"
    labels = {"method": "POST", "route": route}
    return {
        status: REGISTRY.get_sample_value(name, {**labels, "status": status}) or 0.0 for status in ("2xx", "4xx", "5xx")
    }


class TestDeadline:
    async def test_each_call_gets_the_remaining_time_of_the_request(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path, request_clock: ManualClock
    ) -> None:
        timeouts = {"gateway_timeout_seconds": 120, "call_timeout_seconds": 600}
        async with (
            run_gateway(keys, tmp_path, slow_target, **timeouts) as url,
            httpx.AsyncClient(trust_env=False, timeout=30) as http,
        ):
            headers = {"Authorization": f"Bearer {keys.user('alice')}"}
            request = asyncio.create_task(http.post(f"{url}/graphql", json={"query": ACCOUNT_QUERY}, headers=headers))
            method, first = await next_of(slow_services.started)
            assert method == "BatchGetAccounts"
            assert 60 + ROUNDING_SECONDS < first <= 120 + ROUNDING_SECONDS
            request_clock.advance(60)
            slow_services.proceed.set()
            method, second = await next_of(slow_services.started)
            assert method == "GetOperations"
            assert 0 < second <= 60 + ROUNDING_SECONDS
            assert (await request).json()["data"]["account"]["operations"] == {"edges": []}

    async def test_stream_has_no_deadline_and_its_calls_have_the_call_timeout(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
    ) -> None:
        watch = f'subscription {{ topUpUpdated(id: "{uuid4()}") {{ account {{ balance {{ amount }} }} }} }}'
        timeouts = {"gateway_timeout_seconds": 60, "call_timeout_seconds": 600}
        async with (
            run_gateway(keys, tmp_path, slow_target, **timeouts) as url,
            httpx.AsyncClient(trust_env=False, timeout=30) as http,
        ):
            headers = {"Authorization": f"Bearer {keys.user('alice')}", **STREAM}
            async with http.stream("POST", f"{url}/graphql", json={"query": watch}, headers=headers) as response:
                assert await next_of(slow_services.started) == ("WatchTopUp", None)
                slow_services.proceed.set()
                method, seconds = await next_of(slow_services.started)
                assert method == "BatchGetAccounts"
                assert 60 + ROUNDING_SECONDS < seconds <= 600 + ROUNDING_SECONDS
                lines = [line async for line in response.aiter_lines() if line.startswith("data: {")]
                assert "errors" not in json.loads(lines[0].removeprefix("data: "))

    async def test_expired_deadline_cancels_the_call(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
    ) -> None:
        for timeout_seconds in (1, 8):  # on a busy machine, the call may not arrive within a second
            async with (
                run_gateway(keys, tmp_path, slow_target, gateway_timeout_seconds=timeout_seconds) as url,
                httpx.AsyncClient(trust_env=False, timeout=30) as http,
            ):
                headers = {"Authorization": f"Bearer {keys.user('alice')}"}
                response = await http.post(f"{url}/graphql", json={"query": ACCOUNT_QUERY}, headers=headers)
            assert [error["extensions"]["code"] for error in response.json()["errors"]] == ["DEADLINE_EXCEEDED"]
            if not slow_services.started.empty():
                break
        assert await next_of(slow_services.cancelled) == "BatchGetAccounts"

    @pytest.mark.parametrize("name", sorted(CALLS.keys() - {EVENT_STREAM}))
    async def test_call_timeout_is_at_most_the_request_timeout(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path, name: str
    ) -> None:
        method, (verb, path, body, headers) = CALLS[name]
        timeouts = {"gateway_timeout_seconds": 60, "call_timeout_seconds": 600}
        async with (
            run_gateway(keys, tmp_path, slow_target, **timeouts) as url,
            httpx.AsyncClient(trust_env=False, timeout=30) as http,
        ):
            headers = {"Authorization": f"Bearer {keys.user('alice')}"} | headers
            request = asyncio.create_task(http.request(verb, f"{url}{path}", json=body, headers=headers))
            called, remaining = await next_of(slow_services.started)
            assert called == method
            assert 0 < remaining <= 60 + ROUNDING_SECONDS
            slow_services.proceed.set()
            await request


class TestEventStream:
    async def test_event_stream_ends_cleanly_when_the_gateway_stops(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
    ) -> None:
        stop = asyncio.Event()
        headers = {"Authorization": f"Bearer {keys.user('alice')}", **STREAM}
        async with (
            run_gateway(keys, tmp_path, slow_target, stop=stop) as url,
            httpx.AsyncClient(trust_env=False) as http,
            http.stream("POST", f"{url}/graphql", json={"query": WATCH}, headers=headers) as response,
        ):
            await next_of(slow_services.started)
            stop.set()
            async with asyncio.timeout(3):  # less than the shutdown time of requests
                assert await response.aread() == b""  # neither a broken connection nor a `complete` event
            assert await next_of(slow_services.cancelled) == "WatchTopUp"

    async def test_event_stream_ends_cleanly_when_the_token_expires(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
    ) -> None:
        async with run_gateway(keys, tmp_path, slow_target) as url, httpx.AsyncClient(trust_env=False) as http:
            for lifetime_seconds in (2, 8):  # on a busy machine, the subscription may not start within two seconds
                token = keys.user("alice", lifetime_seconds=lifetime_seconds)
                headers = {"Authorization": f"Bearer {token}", **STREAM}
                async with (
                    asyncio.timeout(TEST_TIMEOUT_SECONDS),
                    http.stream("POST", f"{url}/graphql", json={"query": WATCH}, headers=headers) as response,
                ):
                    body = await response.aread()
                if not slow_services.started.empty():
                    break
            assert (response.status_code, body) == (200, b"")  # after such an end, graphql-sse's client reconnects
            assert await next_of(slow_services.cancelled) == "WatchTopUp"


class TestDisconnect:
    @pytest.mark.parametrize(("method", "call"), CALLS.values(), ids=CALLS)
    async def test_disconnect_during_a_request_cancels_its_call(
        self, slow_services: SlowServices, http: httpx.AsyncClient, method: str, call: Call
    ) -> None:
        verb, path, body, headers = call
        request = asyncio.create_task(http.request(verb, path, json=body, headers=headers))
        assert (await next_of(slow_services.started))[0] == method
        request.cancel()
        assert await next_of(slow_services.cancelled) == method
        assert (await http.get("/health/live")).status_code == 200

    @pytest.mark.parametrize("framing", ["content-length: 500", "transfer-encoding: chunked"])
    @pytest.mark.parametrize(
        "route", ["/graphql", "/accounts/{accountId}/transfers", "/accounts/{accountId}/topup", "/auth/login"]
    )
    async def test_disconnect_within_the_body_counts_as_closed_by_the_client(
        self, url: str, keys: Keys, route: str, framing: str
    ) -> None:
        before = count_requests(route)
        host, _, port = url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"POST {route.replace('{accountId}', str(ACCOUNT))} HTTP/1.1",
            "host: gateway",
            f"authorization: Bearer {keys.user('alice')}",
            "content-type: application/json",
            "idempotency-key: k",
            framing,
        )
        writer.write("\r\n".join((*head, "", '6\r\n{"quer')).encode())
        await writer.drain()
        writer.close()

        async def is_counted() -> bool:
            return count_requests(route) != before

        await until(is_counted)
        after = count_requests(route)
        assert after["4xx"] == before["4xx"] + 1
        assert after["5xx"] == before["5xx"]

    async def test_disconnect_during_a_graphql_get_cancels_its_call(
        self, slow_services: SlowServices, http: httpx.AsyncClient
    ) -> None:
        request = asyncio.create_task(http.get("/graphql", params={"query": ACCOUNT_QUERY}))
        await next_of(slow_services.started)
        request.cancel()
        assert await next_of(slow_services.cancelled) == "BatchGetAccounts"

    async def test_disconnect_of_a_websocket_cancels_its_calls(
        self, slow_services: SlowServices, url: str, keys: Keys
    ) -> None:
        async with connect_as_alice(url, keys) as connection:
            await subscribe(connection, WATCH, "1")
            await subscribe(connection, ACCOUNT_QUERY, "2")
            assert {(await next_of(slow_services.started))[0] for _ in range(2)} == {"WatchTopUp", "BatchGetAccounts"}
        assert {await next_of(slow_services.cancelled) for _ in range(2)} == {"WatchTopUp", "BatchGetAccounts"}

    async def test_complete_message_cancels_that_subscription_only(
        self, slow_services: SlowServices, url: str, keys: Keys
    ) -> None:
        async with connect_as_alice(url, keys) as connection:
            await subscribe(connection, WATCH, "1")
            await subscribe(connection, ACCOUNT_QUERY, "2")
            assert {(await next_of(slow_services.started))[0] for _ in range(2)} == {"WatchTopUp", "BatchGetAccounts"}
            await connection.send(json.dumps({"id": "1", "type": "complete"}))
            assert await next_of(slow_services.cancelled) == "WatchTopUp"
            slow_services.proceed.set()
            async with asyncio.timeout(TEST_TIMEOUT_SECONDS):
                response = json.loads(await connection.recv())
            assert (response["id"], response["type"]) == ("2", "next")
            assert slow_services.cancelled.empty()
