"""What opens a circuit, and what closes it."""

import asyncio
import time
from contextlib import suppress

import pytest

from kit.rpc.circuit_breaker import CircuitBreaker, CircuitOpenError


class SilentError(Exception):
    pass


class Witness:
    """A circuit that opens after two failures for no time at all, and the states that it told of."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.states: list[str] = []
        self.circuit = CircuitBreaker(
            failures=2, open_seconds=seconds, on_change=self.states.append, failure_type=SilentError
        )

    def call(self, error: BaseException | None = None, *, ignore_failure: bool = False) -> None:
        with suppress(SilentError, KeyError, asyncio.CancelledError), self.circuit.guard() as attempt:
            attempt.ignore_failure = ignore_failure
            if error is not None:
                raise error

    def open(self) -> None:
        self.call(SilentError())
        self.call(SilentError())
        assert self.states == ["opened"]


class TestClosed:
    def test_opens_after_failures_in_a_row(self) -> None:
        witness = Witness(60)
        witness.open()
        with pytest.raises(CircuitOpenError):
            witness.call()

    @pytest.mark.parametrize("answer", [None, KeyError()], ids=["a success", "a refusal"])
    def test_counts_anew_after_any_answer(self, answer: Exception | None) -> None:
        witness = Witness()
        for _ in range(3):
            witness.call(SilentError())
            witness.call(answer)
        assert witness.states == []

    def test_learns_nothing_from_what_is_cancelled_or_had_no_time(self) -> None:
        witness = Witness()
        witness.call(SilentError())
        witness.call(asyncio.CancelledError())
        witness.call(SilentError(), ignore_failure=True)
        assert witness.states == []
        witness.call(SilentError())
        assert witness.states == ["opened"]

    def test_no_longer_for_a_clock_that_is_set_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        witness, now = Witness(), time.time()
        witness.open()
        monkeypatch.setattr(time, "time", lambda: now - 3_600)
        witness.call()
        assert witness.states[1:] == ["half-opened", "closed"]


class TestHalfOpen:
    def test_lets_one_call_try_and_closes_when_that_succeeds(self) -> None:
        witness = Witness()
        witness.open()
        with witness.circuit.guard():
            assert witness.states[1:] == ["half-opened"]
            with pytest.raises(CircuitOpenError):
                witness.call()
        assert witness.states[2:] == ["closed"]
        witness.call()

    def test_opens_again_when_it_fails(self) -> None:
        witness = Witness()
        witness.open()
        witness.call(SilentError())
        assert witness.states[1:] == ["half-opened", "opened"]

    def test_has_the_next_one_try_after_one_that_was_cancelled(self) -> None:
        witness = Witness()
        witness.open()
        witness.call(asyncio.CancelledError())
        witness.call()
        assert witness.states[1:] == ["half-opened", "closed"]

    def test_learns_nothing_from_a_call_that_began_before(self) -> None:
        witness = Witness()
        early = witness.circuit.guard()
        early.__enter__()
        witness.open()
        with witness.circuit.guard():
            early.__exit__(SilentError, SilentError(), None)
            assert witness.states[1:] == ["half-opened"]
        assert witness.states[2:] == ["closed"]
