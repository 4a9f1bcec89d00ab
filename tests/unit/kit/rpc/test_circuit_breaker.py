"""States of the circuit breaker: examples, and a state machine that compares it with a simple model."""

import asyncio
import time
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from kit.rpc import circuit_breaker
from kit.rpc.circuit_breaker import CircuitBreaker, CircuitOpenError, GuardedCall
from tests.clock import ManualClock

FAILURES = 2
CALLERS = st.sampled_from(["", "alice", "bob"])


class CountedError(Exception):
    """Failure type of the circuits in this module. Other exceptions do not count as failures."""


class RecordedCircuit:
    """Circuit breaker that opens after failures of two callers, with a list of its state changes."""

    def __init__(self, open_seconds: float = 0.0) -> None:
        self.states: list[str] = []
        self.circuit = CircuitBreaker(
            failures=FAILURES, open_seconds=open_seconds, on_change=self.states.append, failure_type=CountedError
        )

    def call(self, error: BaseException | None = None, *, caller: str = "alice", ignore_failure: bool = False) -> None:
        with suppress(CountedError, KeyError, asyncio.CancelledError), self.circuit.guard(caller) as call:
            call.ignore_failure = ignore_failure
            if error is not None:
                raise error

    def open(self) -> None:
        self.call(CountedError())
        self.call(CountedError(), caller="bob")
        assert self.states == ["opened"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    clock = ManualClock()
    monkeypatch.setattr(circuit_breaker, "time", clock)
    return clock


class TestClosed:
    def test_failures_of_several_callers_open_the_circuit(self) -> None:
        recorded = RecordedCircuit(60)
        recorded.open()
        with pytest.raises(CircuitOpenError):
            recorded.call(caller="carol")

    def test_failures_of_one_caller_do_not_open_the_circuit_for_others(self) -> None:
        recorded = RecordedCircuit(60)
        for _ in range(FAILURES):
            recorded.call(CountedError())
        with pytest.raises(CircuitOpenError):
            recorded.call()
        recorded.call(caller="bob")
        assert recorded.states == []

    def test_refused_caller_may_call_once_in_each_period(self, clock: ManualClock) -> None:
        recorded = RecordedCircuit(60)
        for _ in range(FAILURES):
            recorded.call(CountedError())
        for _ in range(2):
            clock.advance(60)
            recorded.call(asyncio.CancelledError())
            with pytest.raises(CircuitOpenError):
                recorded.call()
        clock.advance(60)
        recorded.call()
        recorded.call()
        assert recorded.states == []

    @pytest.mark.parametrize("result", [None, KeyError()], ids=["success", "refusal"])
    def test_success_and_refusal_reset_the_count_of_failures(self, result: Exception | None) -> None:
        recorded = RecordedCircuit()
        for _ in range(3):
            recorded.call(CountedError())
            recorded.call(result, caller="bob")
        assert recorded.states == []

    def test_cancelled_and_ignored_calls_do_not_count(self) -> None:
        recorded = RecordedCircuit()
        recorded.call(CountedError())
        recorded.call(asyncio.CancelledError())
        recorded.call(CountedError(), caller="bob", ignore_failure=True)
        assert recorded.states == []
        recorded.call(CountedError(), caller="bob")
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
        with recorded.circuit.guard("alice"):
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

    def test_next_probe_after_a_failed_one_must_be_of_another_caller(self, clock: ManualClock) -> None:
        recorded = RecordedCircuit(60)
        recorded.open()
        clock.advance(60)
        recorded.call(CountedError())
        clock.advance(60)
        with pytest.raises(CircuitOpenError):
            recorded.call()
        recorded.call(caller="carol")
        assert recorded.states[1:] == ["half-opened", "opened", "half-opened", "closed"]

    def test_caller_of_a_failed_probe_may_probe_again_after_twice_the_time(self, clock: ManualClock) -> None:
        recorded = RecordedCircuit(60)
        recorded.open()
        clock.advance(60)
        recorded.call(CountedError())
        clock.advance(120)
        recorded.call()
        assert recorded.states[-1] == "closed"

    def test_next_call_is_the_probe_after_a_cancelled_probe(self) -> None:
        recorded = RecordedCircuit()
        recorded.open()
        recorded.call(asyncio.CancelledError())
        recorded.call()
        assert recorded.states[1:] == ["half-opened", "closed"]

    def test_call_that_started_before_the_circuit_opened_does_not_count(self) -> None:
        recorded = RecordedCircuit()
        early = recorded.circuit.guard("alice")
        early.__enter__()
        recorded.open()
        with recorded.circuit.guard("alice"):
            early.__exit__(CountedError, CountedError(), None)
            assert recorded.states[1:] == ["half-opened"]
        assert recorded.states[2:] == ["closed"]


class CircuitMachine(RuleBasedStateMachine):
    """State machine that compares the circuit breaker with a model, for overlapping calls with all possible results."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = "closed"
        self.failures: Counter[str] = Counter()
        self.refused_until: dict[str, float] = {}
        self.opened_at = 0.0
        self.failed_prober: str | None = None
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

    @rule(target=calls, caller=CALLERS)
    def start(self, caller: str) -> GuardedCall | None:
        call = self.circuit.guard(caller)
        if self.is_refused(caller):
            with pytest.raises(CircuitOpenError):
                call.__enter__()
            return None
        call.__enter__()
        if self.state != "closed":
            self.state, self.probe = "half-opened", call
        elif self.failures[caller] >= FAILURES:
            self.refused_until[caller] = self.now + self.open_seconds
        return call

    def is_refused(self, caller: str) -> bool:
        match self.state:
            case "closed":
                return self.failures[caller] >= FAILURES and self.now < self.refused_until[caller]
            case "opened":
                periods = 2 if caller == self.failed_prober else 1
                return self.now < self.opened_at + periods * self.open_seconds
        return self.probe is not None

    @rule(
        call=consumes(calls),
        error=st.sampled_from([None, CountedError(), KeyError(), asyncio.CancelledError()]),
        ignore_failure=st.booleans(),
    )
    def end(self, call: GuardedCall | None, error: BaseException | None, *, ignore_failure: bool) -> None:
        if call is None:  # the call was refused
            return
        call.ignore_failure = ignore_failure
        call.__exit__(None if error is None else type(error), error, None)
        is_probe, self.probe = call is self.probe, None if call is self.probe else self.probe
        counts = is_probe or self.state == "closed"
        match error:
            case CountedError() if counts and not ignore_failure:
                self.failures[call.caller] += 1
                self.refused_until[call.caller] = self.now + self.open_seconds
                if is_probe:
                    self.failed_prober = call.caller
                if is_probe or len(self.failures) >= FAILURES:
                    self.state, self.opened_at, self.failures = "opened", self.now, Counter()
            case None | KeyError() if counts:
                self.state, self.failures, self.failed_prober = "closed", Counter(), None

    @invariant()
    def states_agree(self) -> None:
        assert self.states[-1] == self.state

    @invariant()
    def each_reported_state_is_a_change(self) -> None:
        assert all(before != after for before, after in zip(self.states, self.states[1:], strict=False))


TestCircuitMachine = CircuitMachine.TestCase
