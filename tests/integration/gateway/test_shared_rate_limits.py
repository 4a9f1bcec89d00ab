"""Rate limits that several limiters share, in a real Redis."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.http import rate_limits
from gateway.http.rate_limits import STORE_ERRORS, RateLimiter, RateLimitOptions
from provisioning.certificates import ensure_certificates
from stack import probes
from stack.ports import HOST, free_ports
from stack.process import Child, Command, Process
from tests.tls_proxy import tls_proxy
from tests.tools import skip_without_tool
from wallet.errors import RateLimited


def redis(port: int) -> Child:
    """Redis without persistence, for one test."""
    program = shutil.which("redis-server")
    if program is None:
        skip_without_tool("there is no redis-server")

    async def command() -> Command:
        arguments = ("--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no")
        return Command((program, *arguments), dict(os.environ))

    return Child(Process(name="redis", command=command, ready=probes.tcp(HOST, port)))


@pytest.fixture
async def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(autouse=True)
def long_redis_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for Redis longer than in production, because test machines may be slow."""
    monkeypatch.setattr("gateway.http.rate_limits._REDIS_TIMEOUT_SECONDS", 10.0)
    monkeypatch.setattr("gateway.http.rate_limits._POOL_TIMEOUT_SECONDS", 10.0)


@pytest.fixture
async def limiters(port: int) -> AsyncIterator[tuple[RateLimiter, RateLimiter]]:
    """Two limiters with one store; Redis is not running yet."""
    options = RateLimitOptions(store=f"redis://{HOST}:{port}/0", requests="10/hour")
    async with RateLimiter.connect(options) as one, RateLimiter.connect(options) as other:
        yield one, other


async def count_accepted(limiter: RateLimiter, times: int) -> int:
    """Send hits of alice and return the number of accepted ones."""

    async def is_accepted() -> bool:
        try:
            await limiter.hit(limiter.requests, "alice")
        except RateLimited:
            return False
        return True

    return sum(await asyncio.gather(*(is_accepted() for _ in range(times))))


async def test_limiters_with_one_redis_share_the_quota(port: int, limiters: tuple[RateLimiter, RateLimiter]) -> None:
    async with redis(port):
        counts = await asyncio.gather(*(count_accepted(each, 10) for each in limiters))
        assert sum(counts) == 10


async def test_concurrent_hits_do_not_exhaust_the_connection_pool(port: int) -> None:
    options = RateLimitOptions(store=f"redis://{HOST}:{port}/0", requests="1000/hour")
    before = STORE_ERRORS._value.get()
    async with redis(port), RateLimiter.connect(options) as rates:
        assert await count_accepted(rates, 300) == 300
    assert STORE_ERRORS._value.get() == before


async def test_limiters_count_in_memory_while_redis_is_down(
    port: int, limiters: tuple[RateLimiter, RateLimiter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "_RETRY_PAUSE_SECONDS", 0.0)
    one, other = limiters
    assert [await count_accepted(each, 12) for each in limiters] == [10, 10]
    async with redis(port):
        assert await count_accepted(one, 6) + await count_accepted(other, 6) == 10


async def test_redis_is_used_with_tls(port: int, tmp_path: Path) -> None:
    authority, pair = ensure_certificates(tmp_path, ["redis"], datetime.now(UTC))
    async with redis(port), tls_proxy(port, pair) as tls_port:
        store = f"rediss://localhost:{tls_port}/0?ssl_ca_certs={authority.certificate}"
        options = RateLimitOptions(store=store, requests="10/hour")
        failed = STORE_ERRORS._value.get()
        async with RateLimiter.connect(options) as one, RateLimiter.connect(options) as other:
            assert await count_accepted(one, 6) + await count_accepted(other, 6) == 10
        assert STORE_ERRORS._value.get() == failed
