"""Counting what callers ask for."""

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.http.rates import Rate, RateOptions, Rates, Windows, address_of
from wallet.errors import RateLimited


async def test_each_caller_has_a_limit_of_their_own_for_each_thing() -> None:
    rates = Rates(RateOptions(requests="2/hour", cost="2/hour"))
    for remaining in (1, 0):
        await rates.count(rates.requests, "alice")
        standing = await rates.standing(rates.requests, "alice")
        assert standing is not None
        assert standing.remaining == remaining
    with pytest.raises(RateLimited) as refused:
        await rates.count(rates.requests, "alice")
    assert refused.value.limit == "requests"
    assert 1 <= int(refused.value.retry_after_seconds) <= 3_600
    await rates.count(rates.requests, "bob")
    await rates.count(rates.cost, "alice", 2)


async def test_what_is_refused_is_not_counted() -> None:
    rates = Rates(RateOptions(cost="10/hour"))
    await rates.count(rates.cost, "alice", 8)
    with pytest.raises(RateLimited):
        await rates.count(rates.cost, "alice", 3)
    await rates.count(rates.cost, "alice", 2)


async def test_nothing_is_counted_when_it_is_off() -> None:
    rates = Rates(RateOptions(is_on=False, requests="1/hour"))
    for _ in range(3):
        await rates.count(rates.requests, "alice")
    assert await rates.standing(rates.requests, "alice") is None


async def test_the_headers_say_what_is_allowed_and_what_is_left() -> None:
    rates = Rates(RateOptions(sign_in="60/minute"))
    await rates.count(rates.sign_in, "127.0.0.1")
    standing = await rates.standing(rates.sign_in, "127.0.0.1")
    assert standing is not None
    headers = dict(standing.headers)
    assert headers[b"ratelimit-policy"] == b'"sign-in";q=60;w=60'
    assert headers[b"ratelimit"] == b'"sign-in";r=59;t=%d' % standing.reset_seconds


class Clock:
    now = 60.0

    def __call__(self) -> float:
        return self.now


async def left(rates: Rates) -> int:
    standing = await rates.standing(rates.cost, "alice")
    assert standing is not None
    return standing.remaining


async def test_what_was_counted_in_the_window_before_weighs_for_as_long_as_it_reaches_into_the_last_minute() -> None:
    clock = Clock()
    rates = Rates(RateOptions(cost="10/minute"), own=Windows(clock))
    await rates.count(rates.cost, "alice", 10)
    with pytest.raises(RateLimited):
        await rates.count(rates.cost, "alice")
    clock.now = 120 + 30.0
    assert await left(rates) == 5
    with pytest.raises(RateLimited):
        await rates.count(rates.cost, "alice", 6)
    await rates.count(rates.cost, "alice", 5)
    clock.now = 180 + 59.0  # of the five, a twelfth of one is left
    await rates.count(rates.cost, "alice", 10)


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (60.0, 60),  # in the window of the ten: all at once with it
        (60.0 + 45.0, 15),
        (120.0, 1),  # in the next one: the ten go one by one, each six seconds; now
        (120.0 + 2.0, 4),
    ],
)
async def test_who_is_told_when_there_is_more(now: float, seconds: int) -> None:
    clock = Clock()
    rates = Rates(RateOptions(cost="10/minute"), own=Windows(clock))
    await rates.count(rates.cost, "alice", 10)
    clock.now = now
    standing = await rates.standing(rates.cost, "alice")
    assert standing is not None
    assert standing.reset_seconds == seconds


@pytest.mark.parametrize("later", [120.0, 600.0])
async def test_who_is_gone_for_two_windows_is_not_remembered(later: float) -> None:
    clock = Clock()
    windows = Windows(clock)
    rates = Rates(RateOptions(cost="10/minute"), own=windows)
    for caller in range(100):
        await rates.count(rates.cost, str(caller))
    assert windows.remembered == 100
    clock.now += later
    await rates.count(rates.cost, "alice")
    assert windows.remembered == 1


@pytest.mark.parametrize("text", ["", "many", "10", "10/fortnight"])
def test_a_rate_that_is_none_is_refused_with_the_settings(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Rate).validate_python(text)


@pytest.mark.parametrize(
    ("host", "whom"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("a socket", "a socket"),
    ],
)
def test_an_address_counts_as_all_that_one_caller_may_have(host: str, whom: str) -> None:
    assert address_of((host, 4711)) == whom


def test_who_has_no_address_is_one_caller() -> None:
    assert address_of(None) == ""
