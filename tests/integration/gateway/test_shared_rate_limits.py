"""Rates that several gateways share, in a real Redis."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator

import pytest

from gateway.http.rate_limits import STORE_ERRORS, RateLimiter, RateLimitOptions
from stack import probes
from stack.ports import HOST, free_ports
from stack.process import Child, Command, Process
from tests.tools import lacking
from wallet.errors import RateLimited


def redis(port: int) -> Child:
    """A Redis of the test's own, which keeps nothing."""
    program = shutil.which("redis-server")
    if program is None:
        lacking("there is no redis-server")

    async def command() -> Command:
        arguments = ("--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no")
        return Command((program, *arguments), dict(os.environ))

    return Child(Process(name="redis", command=command, ready=probes.tcp(HOST, port)))


@pytest.fixture
async def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is slow is waited for, as all here may be."""
    monkeypatch.setattr("gateway.http.rate_limits._REDIS_TIMEOUT_SECONDS", 10.0)
    monkeypatch.setattr("gateway.http.rate_limits._POOL_TIMEOUT_SECONDS", 10.0)


@pytest.fixture
async def gateways(port: int) -> AsyncIterator[tuple[RateLimiter, RateLimiter]]:
    """Two of them, before there is a Redis."""
    options = RateLimitOptions(store=f"redis://{HOST}:{port}/0", requests="10/hour")
    async with RateLimiter.connect(options) as one, RateLimiter.connect(options) as other:
        yield one, other


async def taken(rates: RateLimiter, times: int) -> int:
    """How many of so many requests of alice's were let through."""

    async def is_taken() -> bool:
        try:
            await rates.hit(rates.requests, "alice")
        except RateLimited:
            return False
        return True

    return sum(await asyncio.gather(*(is_taken() for _ in range(times))))


async def test_gateways_that_share_a_redis_count_together(port: int, gateways: tuple[RateLimiter, RateLimiter]) -> None:
    async with redis(port):
        counts = await asyncio.gather(*(taken(each, 10) for each in gateways))
        assert sum(counts) == 10


async def test_as_many_as_like_may_ask_at_once(port: int) -> None:
    options = RateLimitOptions(store=f"redis://{HOST}:{port}/0", requests="1000/hour")
    before = STORE_ERRORS._value.get()
    async with redis(port), RateLimiter.connect(options) as rates:
        assert await taken(rates, 300) == 300
    assert STORE_ERRORS._value.get() == before


async def test_without_it_each_counts_for_itself_and_together_again_when_it_is_back(
    port: int, gateways: tuple[RateLimiter, RateLimiter]
) -> None:
    one, other = gateways
    assert [await taken(each, 12) for each in gateways] == [10, 10]
    async with redis(port):
        one._use_shared_from = other._use_shared_from = 0.0  # the pause after it was away is over
        assert await taken(one, 6) + await taken(other, 6) == 10
