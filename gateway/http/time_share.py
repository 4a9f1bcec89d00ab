"""Divides the event loop's time among the clients' addresses.

Limits that count requests cannot know what a request costs. So the time of each address is measured, and addresses that
use much of it wait while others, which use little, want to be served. The measurement takes time itself. So only some
requests are measured, and none while all requests come from one address.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from math import exp
from typing import Any, Final

from cachetools import LRUCache

from kit.http.addresses import address_key
from kit.runtime.time_meter import Measured, Meter

_MUCH: Final = 0.1
"""Use of the loop's time, from 0 to 1, above which an address uses much of it."""
_SHARE: Final = 0.3
"""Share of the loop's time for all addresses together that use much of it, while another address is active. Child tasks
and the gRPC library, which are not measured, take about as much again.
"""
_WINDOW_SECONDS: Final = 1.0
"""Time over which the use is averaged, and for which an address is active after a request."""
_AT_ONCE_SECONDS: Final = 0.02
"""Time that an address may use at once, above its share."""
_FIRST_ESTIMATE_SECONDS: Final = 0.001
_ESTIMATE_WEIGHT: Final = 0.1
"""Weight of the newest request in the estimated time of an address's next request."""
_SHORTEST_WAIT_SECONDS: Final = 0.001
_COUNT_SECONDS: Final = 0.05
"""Time between two counts of the addresses that wait."""
_MEASURED: Final = 8
"""One of this number of requests is measured, and at least one in each `_MEASURE_SECONDS`."""
_MEASURE_SECONDS: Final = 0.25
_ADDRESSES: Final = 10_000


class _Account(Meter):
    """Time of one address.

    Attributes:
        use: use of the loop's time in the last second, from 0 to 1.
        read_at: time of the last reading of the meter.
        started: requests since then.
        unmeasured: requests since the last one that was measured.
        measured_at: time of the start of that one.
        free_at: time from which the next request of the address may start.
        estimate: expected time of one request.
        prepaid: expected time of the requests that have started, less the time that they have used.
    """

    __slots__ = ("estimate", "free_at", "measured_at", "prepaid", "read_at", "started", "unmeasured", "use")

    def __init__(self, now: float) -> None:
        super().__init__()
        self.use = 0.0
        self.read_at = now
        self.started = 0
        self.unmeasured = 0
        self.measured_at = 0.0
        self.free_at = 0.0
        self.estimate = _FIRST_ESTIMATE_SECONDS
        self.prepaid = 0.0


class TimeShare:
    """Delays the requests of addresses that use much of the loop's time while an address that uses little is active.

    Attributes:
        is_shared: whether several addresses are active.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Args:
        clock: returns the time in seconds.
        sleep: waits for some seconds.
        """
        self._clock = clock
        self._sleep = sleep
        self._accounts: LRUCache[str, _Account] = LRUCache(_ADDRESSES)
        self.is_shared = False
        self._latest: _Account | None = None  # address of the latest request
        self._latest_at = 0.0
        self._shared_until = 0.0  # end of the time for which the address of an earlier request is active
        self._modest_until = 0.0  # end of the time for which an address that uses little is active
        self._waiting: set[_Account] = set()
        self._counted_at = 0.0

    def measure(self, address: str, work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        """Return the work of a request, which is measured if several addresses are active and it is its turn."""
        if not self.is_shared:
            return work
        account, now = self._account(address), self._clock()
        account.unmeasured += 1
        if account.unmeasured < _MEASURED and now - account.measured_at < _MEASURE_SECONDS:
            return work
        weight, account.unmeasured, account.measured_at = account.unmeasured, 0, now
        return Measured(work, account, weight)

    def charge(self, address: str, seconds: float) -> None:
        """Charge an address for work that is not measured."""
        self._account(address).seconds += seconds

    async def wait(self, address: str, *, longest_seconds: float) -> bool:
        """Wait until the next request of an address, or the next event of a stream, may start.

        Args:
            address: host of the client.
            longest_seconds: maximum wait.

        Returns:
            Whether the address shares the time with others that use little.

        Raises:
            TimeoutError: the wait would be longer. Nothing is charged.
        """
        account, now = self._account(address), self._clock()
        if not self._note_request(account, now):
            account.free_at = account.prepaid = 0.0
            return False
        used = self._read_meter(account, now)
        if account.use <= _MUCH:
            self._modest_until = now + _WINDOW_SECONDS
        elif now < self._modest_until:
            await self._wait_for_share(account, now, used, longest_seconds)
            return True
        account.free_at = account.prepaid = 0.0
        return False

    def _note_request(self, account: _Account, now: float) -> bool:
        """Note a request of an address, and return whether other addresses are active."""
        if account is not self._latest:
            if self._latest is not None:
                self._shared_until = self._latest_at + _WINDOW_SECONDS
            self._latest = account
        self._latest_at = now
        self.is_shared = now < self._shared_until
        return self.is_shared

    def _account(self, address: str) -> _Account:
        key = address_key((address,))
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account(self._clock())
        return account

    def _read_meter(self, account: _Account, now: float) -> float:
        """Return the time that an address has used since the last reading."""
        used, account.seconds = account.seconds, 0.0
        passed, account.read_at = now - account.read_at, now
        account.use = account.use * exp(-passed / _WINDOW_SECONDS) + used / _WINDOW_SECONDS
        if account.started:
            account.estimate += _ESTIMATE_WEIGHT * (used / account.started - account.estimate)
        account.started = 1
        return used

    async def _wait_for_share(self, account: _Account, now: float, used: float, longest_seconds: float) -> None:
        share = self._share(account, now)
        from_prepaid = min(used, account.prepaid)
        account.prepaid -= from_prepaid
        account.free_at = max(account.free_at, now - _AT_ONCE_SECONDS) + (used - from_prepaid) / share
        seconds = account.free_at - now
        if seconds > longest_seconds:
            raise TimeoutError
        account.prepaid += account.estimate
        account.free_at += account.estimate / share
        if seconds > _SHORTEST_WAIT_SECONDS:
            await self._sleep(seconds)

    def _share(self, account: _Account, now: float) -> float:
        """Return the share of an address, which is smaller if other addresses also wait for their next request."""
        if now - self._counted_at > _COUNT_SECONDS:
            self._counted_at = now
            self._waiting = {each for each in self._waiting if each.free_at > now}
        if account.free_at > now:
            self._waiting.add(account)
        return _SHARE / (len(self._waiting) or 1)
