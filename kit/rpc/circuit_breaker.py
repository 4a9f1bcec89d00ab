"""Circuit breaker that stops calls to a dependency that does not answer."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

State: TypeAlias = Literal["closed", "half-opened", "opened"]
"""State of a circuit, as metrics and logs name it."""

STATES: Final[tuple[State, ...]] = ("closed", "half-opened", "opened")
"""All states, for metrics."""


class CircuitOpenError(Exception):
    """The circuit refused the call: the previous calls failed, and it is too early for the next probe."""


class CircuitBreaker:
    """Circuit breaker with three states, for calls of one event loop.

    - closed: calls pass. `failures` consecutive failures open the circuit.
    - opened: calls are refused for `open_seconds`.
    - half-opened: one call, the probe, passes and all others are refused. Its success closes the circuit, its failure
      opens the circuit again.

    A cancelled call counts as neither success nor failure: a cancelled probe leaves the circuit half-opened, and the
    next call is the probe. Nor does a call count that started before the circuit opened and ends later. The clock is
    monotonic.
    """

    def __init__(
        self,
        *,
        failures: int,
        open_seconds: float,
        on_change: Callable[[State], None],
        failure_type: type[Exception] = Exception,
    ) -> None:
        """Args:
        failures: consecutive failures that open the circuit.
        open_seconds: time until the circuit lets a probe through.
        on_change: called with each new state.
        failure_type: exception that counts as a failure. A call that raises any other `Exception` has been answered,
            and counts as a success.
        """
        self._threshold = failures
        self._open_seconds = open_seconds
        self._on_change = on_change
        self._failure_type = failure_type
        self._state: State = "closed"
        self._failures = 0
        self._open_until = 0.0
        self._probe: GuardedCall | None = None

    def guard(self) -> "GuardedCall":
        """Return the context manager of one call; it raises CircuitOpenError if the circuit refuses the call."""
        return GuardedCall(self)

    def begin(self, call: "GuardedCall") -> None:
        """Let the call pass, or refuse it.

        Raises:
            CircuitOpenError: the circuit is open, or another call is the probe.
        """
        if self._state == "closed":
            return
        if self._probe is not None or (self._state == "opened" and time.monotonic() < self._open_until):
            raise CircuitOpenError
        self._probe = call
        self._change("half-opened")

    def end(self, call: "GuardedCall", error: BaseException | None) -> None:
        """Count the result of a call that `begin` let pass."""
        if self._probe is call:
            self._probe = None
        elif self._state != "closed":
            return
        if isinstance(error, self._failure_type):
            if not call.ignore_failure:
                self._fail()
        elif error is None or isinstance(error, Exception):
            self._failures = 0
            self._change("closed")

    def _fail(self) -> None:
        self._failures += 1
        if self._state == "half-opened" or self._failures >= self._threshold:
            self._open_until = time.monotonic() + self._open_seconds
            self._change("opened")

    def _change(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self._on_change(state)


class GuardedCall:
    """Context manager around one call.

    Attributes:
        ignore_failure: set it inside the block to count a failure of this call as neither success nor failure.
    """

    __slots__ = ("_circuit", "ignore_failure")

    def __init__(self, circuit: CircuitBreaker) -> None:
        self._circuit = circuit
        self.ignore_failure = False

    def __enter__(self) -> Self:
        self._circuit.begin(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._circuit.end(self, error)
