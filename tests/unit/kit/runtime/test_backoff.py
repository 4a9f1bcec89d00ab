"""Backoff and retries."""

import asyncio
from types import SimpleNamespace

import pytest

from kit.runtime import backoff
from kit.runtime.backoff import Backoff, retry


class CallError(Exception):
    pass


class FailingCall:
    """A call that fails a number of times, then returns its number of attempts."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.attempts = 0
        self._failures = failures
        self._error = error or CallError()

    async def __call__(self) -> int:
        self.attempts += 1
        if self.attempts <= self._failures:
            raise self._error
        return self.attempts


async def call_with_retries(
    call: FailingCall, *, attempts: int = 3, budget_seconds: float = 60, first_seconds: float = 0
) -> int:
    delays = Backoff(first_seconds, first_seconds)
    return await retry(call, on=(CallError,), attempts=attempts, budget_seconds=budget_seconds, backoff=delays)


def test_backoff_doubles_to_a_maximum_and_restarts_after_reset() -> None:
    delays = Backoff(1, 5)
    for bound in (1, 2, 4, 5, 5):
        assert bound / 2 <= delays.next_delay() <= bound
    delays.reset()
    assert delays.next_delay() <= 1


def test_backoff_delays_differ_between_instances() -> None:
    assert len({Backoff(1, 5).next_delay() for _ in range(10)}) > 1


async def test_retry_returns_the_first_result() -> None:
    assert await call_with_retries(FailingCall(failures=2)) == 3


async def test_retry_raises_the_error_of_the_last_attempt() -> None:
    call = FailingCall(failures=3)
    with pytest.raises(CallError):
        await call_with_retries(call)
    assert call.attempts == 3


async def test_retry_raises_other_errors_at_once() -> None:
    call = FailingCall(failures=1, error=KeyError())
    with pytest.raises(KeyError):
        await call_with_retries(call)
    assert call.attempts == 1


async def test_retry_starts_no_attempt_after_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    # Only the module under test gets this `sleep`, because servers of the test session sleep on the same loop.
    monkeypatch.setattr(backoff, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": sleep}))
    call = FailingCall(failures=9)
    with pytest.raises(CallError):
        await call_with_retries(call, attempts=9, budget_seconds=1, first_seconds=4)
    assert (call.attempts, pauses) == (1, [])
