"""A circuit breaker around calls that may fail for a while: purgatory's, but for two things that it does not do."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import structlog
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.messages.base import Event
from purgatory.domain.messages.events import ContextChanged
from purgatory.domain.model import HALF_OPENED, OpenedState

from subgraphs.card import metrics

log = structlog.get_logger(__name__)

_NAME: Final = "acquirer"


class CircuitOpenError(Exception):
    """The call was not made: the last ones failed, and it is too early to try again."""


class Circuit:
    """Opens after so many failures in a row, and refuses calls from then on; after a while it lets one through, and
    closes if that succeeds. What is raised within a call is a failure of it.

    purgatory lets every call through that comes while the circuit is half open, and takes a cancelled one for a failure
    (or, excluded, for a success, which would close the circuit). Here one call tries, and a cancelled one says nothing.
    """

    def __init__(self, *, failures: int, seconds: float) -> None:
        """Args:
        failures: in a row, which open it.
        seconds: how long it stays open.
        """
        self._factory = AsyncCircuitBreakerFactory(default_threshold=failures, default_ttl=seconds)
        self._factory.add_listener(_show)
        self._is_trying = False

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Around one call.

        Raises:
            CircuitOpenError: it must not be made.
        """
        breaker = await self._factory.get_breaker(_NAME)
        if self._is_trying:
            raise CircuitOpenError
        async with AsyncExitStack() as told:
            try:
                await told.enter_async_context(breaker)
            except OpenedState:
                raise CircuitOpenError from None
            tries = breaker.context.state == HALF_OPENED
            if tries:
                self._is_trying = True
                metrics.CIRCUIT.state(HALF_OPENED)  # purgatory tells it at the end of the call
            try:
                yield
            except Exception:
                raise
            except BaseException:
                told.pop_all()  # cancelled: it might have gone either way
                raise
            finally:
                if tries:
                    self._is_trying = False


def _show(_: str, __: str, event: Event) -> None:
    if isinstance(event, ContextChanged):
        log.warning("the circuit to the acquirer has changed", state=event.state)
        metrics.CIRCUIT.state(event.state)
