"""What travels with a call from process to process: its id, its caller, the time that is left."""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from kit.principal import Principal
from wallet.errors import Unauthenticated

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Call:
    """One call on its way through the system.

    Attributes:
        request_id: names it in every log, on every hop.
        principal: the verified caller, or None for whoever came without a token.
        token: what the caller is known by to the next hop.
        deadline: on the monotonic clock, when nobody waits for an answer any more; None for a stream.
    """

    request_id: str
    principal: Principal | None = None
    token: str | None = None
    deadline: float | None = None

    def remaining(self, cap_seconds: float) -> float:
        """Seconds left, at most `cap_seconds`; zero when the time is up."""
        if self.deadline is None:
            return cap_seconds
        return max(0.0, min(cap_seconds, self.deadline - time.monotonic()))


current: ContextVar[Call] = ContextVar("call")
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


def request_id(proposed: str | None) -> str:
    """The caller's own id for the request where it has one that is safe to log, or a new one."""
    if proposed is not None and _REQUEST_ID.fullmatch(proposed):
        return proposed
    return secrets.token_hex(8)


@contextmanager
def own(token: Callable[[], str]) -> Iterator[None]:
    """A call of the service's own, made under its own name rather than a caller's."""
    reset = current.set(Call(request_id(None), token=token()))
    try:
        yield
    finally:
        current.reset(reset)
