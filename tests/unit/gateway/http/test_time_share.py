"""Addresses that use much of the event loop's time wait while others are active."""

import asyncio
import heapq
import random
from types import SimpleNamespace

import pytest

from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from gateway.http.time_share import _MUCH, _SHARE, TimeShare
from kit.runtime import time_meter
from wallet.errors import RateLimited


class Clock:
    """Clock that the test moves. Sleepers wake when their time has come."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


HEAVY, LIGHT, OTHER = "192.0.2.1", "198.51.100.1", "203.0.113.1"


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def waited(share: TimeShare, clock: Clock, address: str) -> float:
    """Return the time for which the next request of the address waits."""
    before = len(clock.slept)
    await share.wait(address, longest_seconds=1e9)
    return sum(clock.slept[before:])


async def use_much(share: TimeShare, address: str = HEAVY) -> None:
    """Let an address use the whole time of the loop for a second."""
    await share.wait(address, longest_seconds=1e9)
    share.charge(address, 1.0)


async def test_address_alone_never_waits(clock: Clock) -> None:
    share = TimeShare(clock, clock.sleep)
    for _ in range(100):
        assert await waited(share, clock, HEAVY) == 0
        share.charge(HEAVY, 10)
        clock.now += 10


async def test_addresses_that_all_use_much_do_not_wait(clock: Clock) -> None:
    share = TimeShare(clock, clock.sleep)
    for address in (HEAVY, OTHER):
        await use_much(share, address)
    clock.now += 1.1
    for _ in range(100):
        for address in (HEAVY, OTHER):
            share.charge(address, 0.05)
            assert await waited(share, clock, address) == 0
            clock.now += 0.05


async def test_address_that_uses_much_time_waits_while_a_modest_one_is_active(clock: Clock) -> None:
    share = TimeShare(clock, clock.sleep)
    await use_much(share)
    assert not await share.wait(LIGHT, longest_seconds=1)
    assert await waited(share, clock, HEAVY) == pytest.approx(1 / _SHARE, abs=0.1)
    assert await share.wait(HEAVY, longest_seconds=1e9)
    assert await waited(share, clock, LIGHT) == 0


async def test_address_is_free_again_a_second_after_the_others(clock: Clock) -> None:
    share = TimeShare(clock, clock.sleep)
    await use_much(share)
    await share.wait(LIGHT, longest_seconds=1)
    assert await share.wait(HEAVY, longest_seconds=1e9)
    clock.now += 1.1
    share.charge(HEAVY, 1.0)
    assert not await share.wait(HEAVY, longest_seconds=1)


async def test_request_that_would_wait_too_long_is_refused_and_not_charged(clock: Clock) -> None:
    share = TimeShare(clock, clock.sleep)
    await use_much(share)
    await share.wait(LIGHT, longest_seconds=1)
    for _ in range(100):
        with pytest.raises(TimeoutError):
            await share.wait(HEAVY, longest_seconds=1)
    assert await waited(share, clock, HEAVY) == pytest.approx(1 / _SHARE, abs=0.1)


@pytest.mark.parametrize("heavy_addresses", [1, 2, 5])
@pytest.mark.parametrize("cost_seconds", [0.001, 0.02])
async def test_addresses_that_use_much_time_share_a_part_of_it(
    clock: Clock, heavy_addresses: int, cost_seconds: float
) -> None:
    """Simulate clients that send the next request as soon as one has ended, beside one that sends ten a second."""
    share, rng = TimeShare(clock, clock.sleep), random.Random(1)
    heavy = [f"192.0.2.{number}" for number in range(heavy_addresses)]
    due = [(clock.now + rng.random() / 10, address) for address in heavy for _ in range(20)]
    due.append((clock.now, LIGHT))
    heapq.heapify(due)
    used, end = dict.fromkeys([*heavy, LIGHT], 0.0), clock.now + 60
    while due[0][0] < end:
        at, address = heapq.heappop(due)
        clock.now = max(clock.now, at)
        wait = await waited(share, clock, address)
        if address == LIGHT:
            assert wait == 0
        started = clock.now + wait
        share.charge(address, 0.001 if address == LIGHT else cost_seconds)
        used[address] += cost_seconds
        heapq.heappush(due, (started + (0.1 if address == LIGHT else cost_seconds), address))
    total = sum(used[address] for address in heavy)
    share_of_all = max(_SHARE, heavy_addresses * _MUCH)  # an address that uses a tenth is not limited
    assert 0.6 * share_of_all * 60 < total < 1.3 * share_of_all * 60
    assert max(used[address] for address in heavy) < 2 * min(used[address] for address in heavy)


async def run_requests(share: TimeShare, clock: Clock, seconds: float, count: int, interval: float) -> float:
    """Run requests of one address that each take some time, and return the measured time of all."""

    async def work() -> None:
        clock.now += seconds

    meter = share._account(HEAVY)
    before = meter.seconds
    for _ in range(count):
        await share.measure(HEAVY, work())
        clock.now += interval
    return meter.seconds - before


async def test_some_requests_are_measured_for_all_and_none_while_an_address_is_alone(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_meter, "time", SimpleNamespace(perf_counter=clock))
    share = TimeShare(clock, clock.sleep)
    await share.wait(HEAVY, longest_seconds=1)
    assert await run_requests(share, clock, 0.001, 80, 0) == 0
    await share.wait(LIGHT, longest_seconds=1)
    frequent = await run_requests(share, clock, 0.001, 81, 0)
    assert frequent == pytest.approx(0.081, abs=0.008)
    rare = await run_requests(share, clock, 0.025, 10, 0.3)
    assert rare == pytest.approx(0.25, abs=0.025)


async def test_refused_share_is_a_rate_limit(clock: Clock) -> None:
    limiter = RateLimiter(RateLimitOptions(), sleep=clock.sleep)
    await limiter.share_time(HEAVY)
    limiter.time.charge(HEAVY, 100)
    await limiter.share_time(LIGHT)
    with pytest.raises(RateLimited):
        await limiter.share_time(HEAVY)
    await asyncio.gather(*(limiter.share_time(LIGHT) for _ in range(10)))


async def test_share_is_not_limited_without_rate_limits(clock: Clock) -> None:
    limiter = RateLimiter(RateLimitOptions(is_on=False), sleep=clock.sleep)
    await limiter.share_time(LIGHT)
    limiter.time.charge(HEAVY, 100)
    await limiter.share_time(HEAVY)
    assert clock.slept == []
