"""Limits of the expensive work in progress of each client.

A rate limit bounds the work of a minute. These limits bound the work of a moment, so that a client who sends much
expensive work at once delays the other clients by little. Work above a limit waits for earlier work of its client
(`FairLimit`). A client is a caller, or an address if the request has no valid token. Some limits are for an address
in any case, because anybody can register many users.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from kit.http.addresses import address_key
from kit.rpc import request_context
from kit.runtime.fair_limit import FairLimit, Hold
from wallet.errors import ResourceExhausted

CHEAP_COST: Final = 1_000
"""Cost up to which operations are executed without waiting: 3 ms of the gateway's time."""

_PAUSE_SECONDS_PER_COST: Final = 6e-6
"""Pause after an expensive operation: twice the time that it takes, so that one client has a third of the time."""

SMALL_BODY_BYTES: Final = 2 * 1024
"""Size up to which bodies are parsed without waiting. Ordinary requests are smaller."""

_PAUSE_SECONDS_PER_BYTE: Final = 0.3e-6
"""Pause after parsing a body, for the same reason. Hostile JSON of 64 KiB takes up to 10 ms."""

BESIDE_OTHERS: Final = 12
"""Size of a request of an address that uses much time while others use little."""

_LONGEST_WAIT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """Limits that all endpoints of one gateway share. Each is for one client; some are for all clients together, too.

    Attributes:
        passwords: calls of identity for one address that compute a hash of a password, which takes 50 ms of its
            processor time.
        requests: HTTP requests of one address, from the end of the body to the start of the response. While an
            address that uses much time shares it with others, its request counts as twelve (`BESIDE_OTHERS`), because a
            request that arrives at the bank or at another service waits there for all earlier ones.
        operations: the same for queries and mutations on WebSockets, while they are executed.
        handshakes: WebSockets from the upgrade to the verification of the token in `connection_init`.
        messages: characters of the messages of one caller's running operations on WebSockets. Further operations are
            refused instead of waiting, because the client may have to end an operation first.
        bodies: bytes of the bodies of GraphQL requests, from parsing to the response, and of messages on WebSockets
            while they are parsed. The objects of a hostile body take 22 times as much memory as its text.
        large_bodies: requests of one address with a large body (`LARGE_BODY_LIMIT_BYTES`), from its first byte to the
            start of the response. So their bodies take 8 MiB at most.
        costs: estimated cost of the queries and mutations of one client that are executed.
        costs_of_addresses: the same for one address.
    """

    passwords: FairLimit = field(default_factory=lambda: FairLimit(4))
    handshakes: FairLimit = field(default_factory=lambda: FairLimit(100))
    messages: FairLimit = field(default_factory=lambda: FairLimit(512 * 1024))
    bodies: FairLimit = field(default_factory=lambda: FairLimit(128 * 1024, 1024 * 1024))
    large_bodies: FairLimit = field(default_factory=lambda: FairLimit(8))
    requests: FairLimit = field(default_factory=lambda: FairLimit(100, 400 * BESIDE_OTHERS))
    operations: FairLimit = field(default_factory=lambda: FairLimit(100, 400))
    costs: FairLimit = field(default_factory=lambda: FairLimit(5_000))
    costs_of_addresses: FairLimit = field(default_factory=lambda: FairLimit(5_000, 10_000))


def hold_for_request(limit: FairLimit, size: int = 1, *, by_address: bool = False) -> Hold:
    """Return the work of the current request's client, which has to start before the request's deadline.

    Entering it raises `ResourceExhausted` at the deadline.

    Args:
        limit: limit to wait for.
        size: size of the work in the unit of the limit.
        by_address: the client is the address, also for a verified caller.
    """
    current = request_context.current_request.get()
    if by_address or current.principal is None:
        client = address_key((current.client_address,))
    else:
        client = current.principal.scope
    seconds = current.remaining(_LONGEST_WAIT_SECONDS)
    return limit.hold(client, size, timeout_seconds=seconds, refusal=ResourceExhausted)


@asynccontextmanager
async def hold_body(bodies: FairLimit, size: int) -> AsyncIterator[None]:
    """Wait until a body may be parsed, and end the work some milliseconds after the block.

    Args:
        bodies: limit of the bodies (`WorkLimits`).
        size: size of the body in bytes.
    """
    hold = hold_for_request(bodies, size)
    await hold.__aenter__()
    try:
        await asyncio.sleep(0)  # other requests run between two bodies that arrived together
        yield
    finally:
        _release_after(hold, size * _PAUSE_SECONDS_PER_BYTE)


class OperationHold:
    """Places of one query or mutation in the limits. Used for one execution."""

    __slots__ = ("_costs", "_place", "_work")

    def __init__(self, work: WorkLimits) -> None:
        """Args:
        work: the limits.
        """
        self._work = work
        self._costs: list[Hold] = []
        self._place: Hold | None = None

    async def acquire(self, estimated: int, *, is_on_websocket: bool) -> None:
        """Wait until the operation may be executed.

        Args:
            estimated: estimated cost of the operation.
            is_on_websocket: the operation needs a place of its own. Over HTTP, the request has one.

        Raises:
            ResourceExhausted: the operation could not start before the deadline of the request.
        """
        if estimated > CHEAP_COST:
            work = self._work
            self._costs.append(await hold_for_request(work.costs, estimated).__aenter__())
            by_address = hold_for_request(work.costs_of_addresses, estimated, by_address=True)
            self._costs.append(await by_address.__aenter__())
            await asyncio.sleep(0)
        if is_on_websocket:
            self._place = await hold_for_request(self._work.operations, by_address=True).__aenter__()

    def end_execution(self) -> None:
        """Note that the operation has its result, which may still have to be sent. May be called several times."""
        if self._place is not None:
            self._place.release()

    def end(self, actual: int, *, is_time_shared: bool) -> None:
        """End the operation; an expensive one after a pause if other addresses are active.

        Args:
            actual: actual cost of the operation.
            is_time_shared: whether several addresses are active (`TimeShare.is_shared`).
        """
        self.end_execution()
        for hold in self._costs:
            if is_time_shared:
                _release_after(hold, actual * _PAUSE_SECONDS_PER_COST)
            else:
                hold.release()


def _release_after(hold: Hold, seconds: float) -> None:
    asyncio.get_running_loop().call_later(seconds, hold.release)
