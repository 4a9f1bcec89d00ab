"""What travels with a call from process to process: its id, its caller, the time that is left, its place in a trace."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from kit.auth.principal import Principal
from kit.telemetry.tracing import TraceContext
from wallet.errors import Unauthenticated

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One call on its way through the system.

    Attributes:
        request_id: names it in every log, on every hop.
        principal: the verified caller, or None for whoever came without a token.
        token: what the caller is known by to the next hop.
        deadline: on the monotonic clock, when nobody waits for an answer any more; None for a stream.
        trace: where what is done for it stands.
    """

    request_id: str
    principal: Principal | None = None
    token: str | None = None
    deadline: float | None = None
    trace: TraceContext = field(default_factory=TraceContext.new)

    def with_principal(self, principal: Principal, token: str) -> "RequestContext":
        """The same, now that its caller is known."""
        return RequestContext(self.request_id, principal, token, self.deadline, self.trace)

    def remaining(self, cap_seconds: float) -> float:
        """Seconds left, at most `cap_seconds`; zero when the time is up."""
        if self.deadline is None:
            return cap_seconds
        return max(0.0, min(cap_seconds, self.deadline - time.monotonic()))


current: ContextVar[RequestContext] = ContextVar("call")
"""The call that this task works for."""


def principal() -> Principal:
    """The caller of the current call.

    Raises:
        Unauthenticated: there is none.
    """
    call = current.get(None)
    if call is None or call.principal is None:
        raise Unauthenticated
    return call.principal


def request_id(proposed: str | None, current_trace: TraceContext) -> str:
    """The caller's own id for the request where it has one that is safe to log, or its trace's."""
    if proposed is not None and _REQUEST_ID.fullmatch(proposed):
        return proposed
    return current_trace.id


def current_trace() -> TraceContext:
    """Where what is done now stands; a trace of its own for what is done for nobody's call."""
    call = current.get(None)
    return TraceContext.new() if call is None else call.trace


@contextmanager
def as_service(token: Callable[[], str]) -> Iterator[None]:
    """A call made under the service's own name rather than a caller's: for the call at hand, if there is one, and then
    by its id and in its trace.
    """
    call = current.get(None)
    place = current_trace()
    reset = current.set(RequestContext(place.id if call is None else call.request_id, token=token(), trace=place))
    try:
        yield
    finally:
        current.reset(reset)
