"""States of the circuit breaker: examples, and a state machine that compares it with a simple model."""

import asyncio
import time
from contextlib import suppress

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from kit.rpc import circuit_breaker
from kit.rpc.circuit_breaker import CircuitBreaker, CircuitOpenError, GuardedCall

FAILURES = 2


class CountedError(Exception):
    """Failure type of the circuits in this module; other exceptions do not count."""


class RecordedCircuit:
    """A circuit that opens after two failures, with the list of its state changes."""

    def __init__(self, open_seconds: float = 0.0) -> None:
        self.states: list[str] = []
        self.circuit = CircuitBreaker(
            failures=FAILURES, open_seconds=open_seconds, on_change=self.states.append, failure_type=CountedError
        )

    def call(self, error: BaseException | None = None, *, ignore_failure: bool = False) -> None:
        with suppress(CountedError, KeyError, asyncio.CancelledError), self.circuit.guard() as call:
            call.ignore_failure = ignore_failure
            if error is not None:
                raise error

    def open(self) -> None:
        self.call(CountedError())
        self.call(CountedError())
        assert self.states == ["opened"]


class TestClosed:
    def test_consecutive_failures_open_the_circuit(self) -> None:
        recorded = RecordedCircuit(60)
        recorded.open()
        with pytest.raises(CircuitOpenError):
            recorded.call()

    @pytest.mark.parametrize("answer", [None, KeyError()], ids=["success", "refusal"])
    def test_any_answer_resets_the_count_of_failures(self, answer: Exception | None) -> None:
        recorded = RecordedCircuit()
        for _ in range(3):
            recorded.call(CountedError())
            recorded.call(answer)
        assert recorded.states == []

    def test_cancelled_and_ignored_calls_do_not_count(self) -> None:
        recorded = RecordedCircuit()
        recorded.call(CountedError())
        recorded.call(asyncio.CancelledError())
        recorded.call(CountedError(), ignore_failure=True)
        assert recorded.states == []
        recorded.call(CountedError())
        assert recorded.states == ["opened"]


class TestOpened:
    def test_system_clock_that_is_set_back_does_not_keep_the_circuit_open(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recorded, now = RecordedCircuit(), time.time()
        recorded.open()
        monkeypatch.setattr(time, "time", lambda: now - 3_600)
        recorded.call()
        assert recorded.states[1:] == ["half-opened", "closed"]


class TestHalfOpened:
    def test_one_probe_passes_and_its_success_closes_the_circuit(self) -> None:
        recorded = RecordedCircuit()
        recorded.open()
        with recorded.circuit.guard():
            assert recorded.states[1:] == ["half-opened"]
            with pytest.raises(CircuitOpenError):
                recorded.call()
        assert recorded.states[2:] == ["closed"]
        recorded.call()

    def test_failed_probe_opens_the_circuit_again(self) -> None:
        recorded = RecordedCircuit()
        recorded.open()
        recorded.call(CountedError())
        assert recorded.states[1:] == ["half-opened", "opened"]

    def test_next_call_is_the_probe_after_a_cancelled_probe(self) -> None:
        recorded = RecordedCircuit()
        recorded.open()
        recorded.call(asyncio.CancelledError())
        recorded.call()
        assert recorded.states[1:] == ["half-opened", "closed"]

    def test_call_that_started_before_the_circuit_opened_does_not_count(self) -> None:
        recorded = RecordedCircuit()
        early = recorded.circuit.guard()
        early.__enter__()
        recorded.open()
        with recorded.circuit.guard():
            early.__exit__(CountedError, CountedError(), None)
            assert recorded.states[1:] == ["half-opened"]
        assert recorded.states[2:] == ["closed"]


class CircuitMachine(RuleBasedStateMachine):
    """Overlapping calls with all results, on a manual clock, against a model of the three states."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = "closed"
        self.failures = 0
        self.opened_at = 0.0
        self.probe: GuardedCall | None = None
        self.states = ["closed"]
        self.open_seconds = 0
        self.clock = pytest.MonkeyPatch()

    @initialize(open_seconds=st.integers(0, 3))
    def create(self, open_seconds: int) -> None:
        self.clock.setattr(circuit_breaker, "time", self)
        self.open_seconds = open_seconds
        self.circuit = CircuitBreaker(
            failures=FAILURES, open_seconds=open_seconds, on_change=self.states.append, failure_type=CountedError
        )

    def monotonic(self) -> float:
        return self.now

    def teardown(self) -> None:
        self.clock.undo()

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(target=calls)
    def start(self) -> GuardedCall | None:
        call = self.circuit.guard()
        is_refused = self.state != "closed" and (
            self.probe is not None or (self.state == "opened" and self.now < self.opened_at + self.open_seconds)
        )
        if is_refused:
            with pytest.raises(CircuitOpenError):
                call.__enter__()
            return None
        call.__enter__()
        if self.state != "closed":
            self.state, self.probe = "half-opened", call
        return call

    @rule(
        call=consumes(calls),
        error=st.sampled_from([None, CountedError(), KeyError(), asyncio.CancelledError()]),
        ignore_failure=st.booleans(),
    )
    def end(self, call: GuardedCall | None, error: BaseException | None, *, ignore_failure: bool) -> None:
        if call is None:  # it was refused
            return
        call.ignore_failure = ignore_failure
        call.__exit__(None if error is None else type(error), error, None)
        is_probe, self.probe = call is self.probe, None if call is self.probe else self.probe
        counts = is_probe or self.state == "closed"
        match error:
            case CountedError() if counts and not ignore_failure:
                self.failures += 1
                if is_probe or self.failures >= FAILURES:
                    self.state, self.opened_at = "opened", self.now
            case None | KeyError() if counts:
                self.state, self.failures = "closed", 0

    @invariant()
    def states_agree(self) -> None:
        assert self.states[-1] == self.state

    @invariant()
    def each_reported_state_is_a_change(self) -> None:
        assert all(before != after for before, after in zip(self.states, self.states[1:], strict=False))


TestCircuitMachine = CircuitMachine.TestCase
