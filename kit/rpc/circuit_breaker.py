"""A circuit breaker: purgatory's states, and around them what it does not do. See `CircuitBreaker`."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from purgatory.domain.messages.events import ContextChanged
from purgatory.domain.model import CLOSED, HALF_OPENED, OPENED, Context, HalfOpenedState

STATES: Final = (CLOSED, HALF_OPENED, OPENED)
"""What a circuit may be, for metrics."""


class CircuitOpenError(Exception):
    """The call was not made: the last ones failed, and it is too early to try again."""


class CircuitBreaker:
    """Opens after so many failures in a row, and refuses calls from then on; after a while it lets one through, and
    closes if that succeeds.

    purgatory lets every call through that comes while the circuit is half open, and takes a cancelled one for a failure
    (or, excluded, for a success, which would close the circuit). Here one call tries, and a cancelled one says nothing;
    nor does one that began before the others failed. How long it is open goes by the monotonic clock, which nobody sets
    back. Its bus, for breakers that several processes share, is left out.
    """

    def __init__(
        self,
        *,
        failures: int,
        seconds: float,
        tell: Callable[[str], None],
        failure: type[Exception] = Exception,
    ) -> None:
        """Args:
        failures: in a row, which open it.
        seconds: how long it stays open.
        tell: is told of each new state, one of `STATES`.
        failure: what a call fails with. Whatever else it raises is an answer, and so a success.
        """
        self._states = Context("", failures, seconds)
        self._failure = failure
        self._tell = tell
        self._seconds = seconds
        self._open_until = 0.0
        self._trial: Attempt | None = None

    def attempt(self) -> "Attempt":
        """Around one call: `with circuit.attempt(): …`, which raises CircuitOpenError where it must not be made."""
        return Attempt(self)

    def begin(self, attempt: "Attempt") -> None:
        """Lets the call be made.

        Raises:
            CircuitOpenError: it must not be.
        """
        is_open = self._states.state == OPENED
        if self._trial is not None or (is_open and time.monotonic() < self._open_until):
            raise CircuitOpenError
        if is_open:
            self._states.set_state(HalfOpenedState())
        self._states.handle_new_request()
        if self._states.state == HALF_OPENED:
            self._trial = attempt
            self._tell_changes()

    def end(self, attempt: "Attempt", error: BaseException | None) -> None:
        """Takes note of how the call has ended."""
        if self._trial is attempt:
            self._trial = None
        elif self._states.state != CLOSED:
            return
        if isinstance(error, self._failure):
            if not attempt.ignore_failure:
                self._states.handle_exception(error)
        elif error is None or isinstance(error, Exception):
            self._states.handle_end_request()
        self._tell_changes()

    def _tell_changes(self) -> None:
        while self._states.messages:
            message = self._states.messages.pop(0)
            if isinstance(message, ContextChanged):
                if message.state == OPENED:
                    self._open_until = time.monotonic() + self._seconds
                self._tell(message.state)


class Attempt:
    """One call.

    Attributes:
        ignore_failure: whether a failure of it says nothing.
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
