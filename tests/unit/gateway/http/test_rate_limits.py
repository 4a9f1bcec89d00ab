"""Rate limits: counters, windows, headers and the notation of rates."""

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.http.rate_limits import MemorySlidingWindowStorage, Rate, RateLimiter, RateLimitOptions
from wallet.errors import RateLimited


class Clock:
    now = 60.0

    def __call__(self) -> float:
        return self.now


async def remaining_cost(limiter: RateLimiter) -> int:
    status = await limiter.status(limiter.cost, "alice")
    assert status is not None
    return status.remaining


async def test_each_caller_has_a_separate_quota_of_each_limit() -> None:
    limiter = RateLimiter(RateLimitOptions(requests="2/hour", cost="2/hour"))
    for remaining in (1, 0):
        await limiter.hit(limiter.requests, "alice")
        status = await limiter.status(limiter.requests, "alice")
        assert status is not None
        assert status.remaining == remaining
    with pytest.raises(RateLimited) as refused:
        await limiter.hit(limiter.requests, "alice")
    assert refused.value.limit == "requests"
    assert 1 <= int(refused.value.retry_after_seconds) <= 3_600
    await limiter.hit(limiter.requests, "bob")
    await limiter.hit(limiter.cost, "alice", 2)


async def test_rejected_hit_is_not_counted() -> None:
    limiter = RateLimiter(RateLimitOptions(cost="10/hour"))
    await limiter.hit(limiter.cost, "alice", 8)
    with pytest.raises(RateLimited):
        await limiter.hit(limiter.cost, "alice", 3)
    await limiter.hit(limiter.cost, "alice", 2)


async def test_disabled_limiter_counts_nothing() -> None:
    limiter = RateLimiter(RateLimitOptions(is_on=False, requests="1/hour"))
    for _ in range(3):
        await limiter.hit(limiter.requests, "alice")
    assert await limiter.status(limiter.requests, "alice") is None


async def test_status_headers_contain_policy_and_remaining_quota() -> None:
    limiter = RateLimiter(RateLimitOptions(login="60/minute"))
    await limiter.hit(limiter.login, "127.0.0.1")
    status = await limiter.status(limiter.login, "127.0.0.1")
    assert status is not None
    headers = dict(status.headers)
    assert headers[b"ratelimit-policy"] == b'"sign-in";q=60;w=60'
    assert headers[b"ratelimit"] == b'"sign-in";r=59;t=%d' % status.reset_seconds


async def test_previous_window_counts_in_proportion_to_its_overlap() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimitOptions(cost="10/minute"), local=MemorySlidingWindowStorage(clock))
    await limiter.hit(limiter.cost, "alice", 10)
    with pytest.raises(RateLimited):
        await limiter.hit(limiter.cost, "alice")
    clock.now = 120 + 30.0
    assert await remaining_cost(limiter) == 5
    with pytest.raises(RateLimited):
        await limiter.hit(limiter.cost, "alice", 6)
    await limiter.hit(limiter.cost, "alice", 5)
    clock.now = 180 + 59.0  # the five hits of the previous window count as 5/60, rounded down to 0
    await limiter.hit(limiter.cost, "alice", 10)


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (60.0, 60),  # current window: all ten expire together at its end
        (60.0 + 45.0, 15),
        (120.0, 1),  # next window: the ten expire one by one, one every six seconds, the first one now
        (120.0 + 2.0, 4),
    ],
)
async def test_reset_seconds_is_the_time_until_the_next_hit_expires(now: float, seconds: int) -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimitOptions(cost="10/minute"), local=MemorySlidingWindowStorage(clock))
    await limiter.hit(limiter.cost, "alice", 10)
    clock.now = now
    status = await limiter.status(limiter.cost, "alice")
    assert status is not None
    assert status.reset_seconds == seconds


@pytest.mark.parametrize("seconds_later", [120.0, 600.0])
async def test_counters_are_dropped_after_two_windows(seconds_later: float) -> None:
    clock = Clock()
    storage = MemorySlidingWindowStorage(clock)
    limiter = RateLimiter(RateLimitOptions(cost="10/minute"), local=storage)
    for caller in range(100):
        await limiter.hit(limiter.cost, str(caller))
    assert storage.entry_count == 100
    clock.now += seconds_later
    await limiter.hit(limiter.cost, "alice")
    assert storage.entry_count == 1


@pytest.mark.parametrize("text", ["", "many", "10", "10/fortnight"])
def test_invalid_rate_is_rejected_by_the_settings(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Rate).validate_python(text)
