"""Who asks for too much is told so, and when to come back; others do not notice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.conftest import Keys
from tests.integration.gateway.running import serving

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
