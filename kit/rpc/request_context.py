"""Request context: the data that travels with a call through all processes."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from kit.auth.principal import Principal
from kit.telemetry.card_numbers import has_card_number
from kit.telemetry.tracing import TraceContext
from wallet.errors import Unauthenticated

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Context of one request. Every call to another process that the request causes carries it.

    Attributes:
        request_id: id of the request in the logs of all processes.
        principal: verified caller; None for an anonymous caller.
        token: bearer token for the calls that the request causes.
        deadline: end of the caller's time-out on the monotonic clock; None for a stream.
        trace: trace context, the parent of new spans.
        client_address: in the gateway, the host of its client; empty in other processes.
    """

    request_id: str
    principal: Principal | None = None
    token: str | None = None
    deadline: float | None = None
    trace: TraceContext = field(default_factory=TraceContext.new)
    client_address: str = ""

    def with_principal(self, principal: Principal, token: str) -> "RequestContext":
        """Return a copy with the verified caller and the caller's token."""
        return RequestContext(self.request_id, principal, token, self.deadline, self.trace, self.client_address)

    def remaining(self, cap_seconds: float) -> float:
        """Return the seconds until the deadline, at most `cap_seconds`; 0 after the deadline."""
        if self.deadline is None:
            return cap_seconds
        return max(0.0, min(cap_seconds, self.deadline - time.monotonic()))


current_request: ContextVar[RequestContext] = ContextVar("current_request")
"""Request that the current task works for."""


def current_principal() -> Principal:
    """Return the caller of the current request.

    Raises:
        Unauthenticated: there is no current request, or its caller is anonymous.
    """
    request = current_request.get(None)
    if request is None or request.principal is None:
        raise Unauthenticated
    return request.principal


def choose_request_id(proposed: str | None, trace: TraceContext) -> str:
    """Return the request id that the caller proposes if it is safe to log, otherwise the trace id.

    An id with a card number is not safe, because ids are returned to callers, logged, and sent to other services.
    """
    if proposed == trace.trace_id:  # the most frequent case
        return proposed
    if proposed is not None and _REQUEST_ID.fullmatch(proposed) and not has_card_number(proposed):
        return proposed
    return trace.trace_id


def current_trace() -> TraceContext:
    """Return the trace context of the current request; a new trace if there is no request."""
    request = current_request.get(None)
    return TraceContext.new() if request is None else request.trace


@contextmanager
def as_service(token: Callable[[], str]) -> Iterator[None]:
    """Run the block as the service itself, with the id and the trace of the current request, if there is one.

    Args:
        token: returns a token of the service, such as `ServiceTokenProvider`.
    """
    request, trace = current_request.get(None), current_trace()
    request_id = trace.trace_id if request is None else request.request_id
    reset = current_request.set(RequestContext(request_id, token=token(), trace=trace))
    try:
        yield
    finally:
        current_request.reset(reset)
