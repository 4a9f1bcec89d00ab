"""Circuit breaker that stops calls to a dependency that does not respond."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

State: TypeAlias = Literal["closed", "half-opened", "opened"]
"""State of a circuit, as metrics and logs name it."""

STATES: Final[tuple[State, ...]] = ("closed", "half-opened", "opened")
"""All states, for metrics."""


class CircuitOpenError(Exception):
    """The circuit refused the call: earlier calls failed, and this call may not be the probe."""


class CircuitBreaker:
    """Circuit breaker with three states, for calls that one event loop makes on behalf of several callers.

    One caller cannot open the circuit for the others: a caller counts once, however many of its calls fail.

    - closed: calls pass. The circuit opens when calls of `failures` callers have failed and no call has succeeded
    since.
      If one caller has `failures` failed calls, only this caller's calls are refused, except for one in each
      `open_seconds`.
    - opened: calls are refused for `open_seconds`.
    - half-opened: one call, the probe, passes and all others are refused. Its success closes the circuit, its failure
      opens the circuit again. The caller of a failed probe must then wait twice as long as the others.

    A cancelled call counts as neither success nor failure: a cancelled probe leaves the circuit half-opened, and the
    next call is the probe. A call that started before the circuit opened and ends later does not count either. The
    clock is monotonic.
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
        failures: the circuit opens for all callers after calls of this number of callers have failed, and for one
            caller after this number of its calls has failed.
        open_seconds: time until the circuit lets a probe through.
        on_change: called with each new state.
        failure_type: exception that counts as a failure. Any other `Exception` means that the dependency has
            responded, and counts as a success.
        """
        self._threshold = failures
        self._open_seconds = open_seconds
        self._on_change = on_change
        self._failure_type = failure_type
        self._state: State = "closed"
        self._failures: dict[str, _CallerFailures] = {}
        """Failures since the last success, by caller; there are fewer than `failures` callers."""
        self._open_until = 0.0
        self._probe: GuardedCall | None = None
        self._failed_prober: str | None = None

    def guard(self, caller: str) -> "GuardedCall":
        """Return the context manager of one call; it raises CircuitOpenError if the circuit refuses the call.

        Args:
            caller: caller that a failure counts for, such as a principal's scope; empty for the process itself.
        """
        return GuardedCall(self, caller)

    def begin(self, call: "GuardedCall") -> None:
        """Let the call pass, or refuse it.

        Raises:
            CircuitOpenError: the circuit is open, for all or for this caller, or another call is the probe.
        """
        if self._state == "closed":
            if self._failures and (own := self._failures.get(call.caller)) is not None:
                self._begin_after_failures(own)
            return
        if self._probe is not None or (self._state == "opened" and time.monotonic() < self._probe_from(call.caller)):
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
                self._fail(call.caller)
        elif error is None or isinstance(error, Exception):
            if self._failures:
                self._failures = {}
            self._failed_prober = None
            self._change("closed")

    def _begin_after_failures(self, own: "_CallerFailures") -> None:
        if own.count >= self._threshold:
            now = time.monotonic()
            if now < own.refused_until:
                raise CircuitOpenError
            own.refused_until = now + self._open_seconds

    def _probe_from(self, caller: str) -> float:
        """Return when a call of this caller may be the probe."""
        return self._open_until + (self._open_seconds if caller == self._failed_prober else 0.0)

    def _fail(self, caller: str) -> None:
        until = time.monotonic() + self._open_seconds
        if self._state == "half-opened":
            self._failed_prober = caller
        else:
            own = self._failures.setdefault(caller, _CallerFailures())
            own.count += 1
            own.refused_until = until
            if len(self._failures) < self._threshold:
                return
        self._failures = {}
        self._open_until = until
        self._change("opened")

    def _change(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self._on_change(state)


@dataclass(slots=True)
class _CallerFailures:
    """Failed calls of one caller.

    Attributes:
        count: number of failed calls since the last success of any caller.
        refused_until: time on the monotonic clock from which one call passes, once `count` has reached its limit.
    """

    count: int = 0
    refused_until: float = 0.0


class GuardedCall:
    """Context manager around one call.

    Attributes:
        caller: caller that a failure counts for.
        ignore_failure: set it inside the block so that a failure of this call is not counted.
    """

    __slots__ = ("_circuit", "caller", "ignore_failure")

    def __init__(self, circuit: CircuitBreaker, caller: str) -> None:
        self._circuit = circuit
        self.caller = caller
        self.ignore_failure = False

    def __enter__(self) -> Self:
        self._circuit.begin(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._circuit.end(self, error)
