"""Pacing: the requests of one client start at a limited rate, and those of the others at once."""

import asyncio

import pytest

from gateway.http.pacing import AT_ONCE, Pacer
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from wallet.errors import RateLimited


class Clock:
    """Clock whose sleeps end at once. `slept` has the lengths of the sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pacer(clock: Clock) -> Pacer:
    return Pacer(clock.time, clock.sleep)


async def test_burst_is_spread_over_time(pacer: Pacer, clock: Clock) -> None:
    """With a sustained rate of 100 a second, the requests start at 300 a second."""
    for _ in range(AT_ONCE):
        await pacer.wait("a", 100)
    assert clock.slept == []
    for _ in range(3):
        await pacer.wait("a", 100)
    assert clock.slept == pytest.approx([1 / 300, 2 / 300, 3 / 300])


async def test_low_rate_does_not_make_refused_requests_wait_for_long(pacer: Pacer, clock: Clock) -> None:
    for _ in range(AT_ONCE + 1):
        await pacer.wait("a", 1 / 3600)
    assert clock.slept == pytest.approx([1 / 100])


async def test_request_that_would_wait_too_long_is_refused(pacer: Pacer, clock: Clock) -> None:
    for _ in range(AT_ONCE + 500):
        await pacer.wait("a", 10)
    assert max(clock.slept) == pytest.approx(5)
    with pytest.raises(TimeoutError):
        await pacer.wait("a", 10)
    limiter = RateLimiter(RateLimitOptions(requests="1/hour"), sleep=clock.sleep)
    paces = (limiter.pace(limiter.requests, "a") for _ in range(AT_ONCE + 1_000))
    outcomes = await asyncio.gather(*paces, return_exceptions=True)
    assert {type(each) for each in outcomes} == {type(None), RateLimited}


async def test_burst_of_one_client_does_not_delay_another(pacer: Pacer, clock: Clock) -> None:
    for _ in range(AT_ONCE + 1):
        await pacer.wait("a", 10)
    assert len(clock.slept) == 1
    await pacer.wait("b", 10)
    assert len(clock.slept) == 1


async def test_requests_at_the_sustained_rate_never_wait(pacer: Pacer, clock: Clock) -> None:
    for _ in range(200):
        await pacer.wait("a", 100)
        clock.now += 1 / 100
    assert clock.slept == []


async def test_client_may_send_a_burst_again_after_a_pause(pacer: Pacer, clock: Clock) -> None:
    for _ in range(AT_ONCE + 10):
        await pacer.wait("a", 10)
    clock.now, clock.slept = 60.0, []
    for _ in range(AT_ONCE):
        await pacer.wait("a", 10)
    assert clock.slept == []


async def test_requests_are_not_paced_without_rate_limits() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimitOptions(is_on=False, requests="1/hour"), sleep=clock.sleep)
    for _ in range(2 * AT_ONCE):
        await limiter.pace(limiter.requests, "a")
    assert clock.slept == []


async def test_subscriptions_of_an_address_start_slowly_but_are_never_refused() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimitOptions(), sleep=clock.sleep)
    for _ in range(AT_ONCE + 1_000):
        await limiter.pace_stream("192.0.2.1")
    assert max(clock.slept) == pytest.approx(1_000 / 50, abs=1)
    slept = len(clock.slept)
    await limiter.pace_stream("198.51.100.1")
    assert len(clock.slept) == slept


async def test_refused_requests_are_paced_too() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimitOptions(requests="1/hour"), sleep=clock.sleep)
    await asyncio.gather(*(limiter.pace(limiter.requests, "a") for _ in range(AT_ONCE + 2)))
    first, second = clock.slept
    assert second > first > 0
