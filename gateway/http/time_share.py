"""Divides the event loop's time among the clients' addresses.

Limits that count requests cannot know what a request costs. So the time of each address is measured, and addresses that
use much of it wait while others want to be served.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from cachetools import LRUCache

from kit.http.addresses import address_key
from kit.runtime.time_meter import Meter

_SHARE: Final = 0.5
"""Share of the loop's time for all addresses together that use much of it, while another address is active."""
_AT_ONCE_SECONDS: Final = 0.02
"""Time that an address may use at once. An address that uses less than its share never waits."""
_ACTIVE_SECONDS: Final = 1.0
"""Time for which an address is active after a request."""
_COUNT_SECONDS: Final = 0.05
"""Time between two counts of the addresses that wait."""
_FIRST_ESTIMATE_SECONDS: Final = 0.001
_ESTIMATE_WEIGHT: Final = 0.1
"""Weight of the newest request in the estimated time of an address's next request."""
_SHORTEST_WAIT_SECONDS: Final = 0.001
_ADDRESSES: Final = 10_000


class _Account(Meter):
    """Time of one address.

    Attributes:
        free_at: time from which the next request of the address may start.
        estimate: expected time of one request.
        prepaid: expected time of the requests that have started, less the time that they have used.
        started: requests since the last reading of the meter.
    """

    __slots__ = ("estimate", "free_at", "prepaid", "started")

    def __init__(self) -> None:
        super().__init__()
        self.free_at = 0.0
        self.estimate = _FIRST_ESTIMATE_SECONDS
        self.prepaid = 0.0
        self.started = 0


class TimeShare:
    """Delays the requests of addresses that use much of the loop's time while other addresses are active."""

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
        self._waiting: set[_Account] = set()
        self._counted_at = 0.0
        self._latest: tuple[_Account | None, float] = (None, 0.0)  # the address of the latest request
        self._latest_other: tuple[_Account | None, float] = (None, 0.0)  # the latest one before it, of another address

    def meter(self, address: str) -> Meter:
        """Return the meter for work of an address."""
        return self._account(address)

    async def wait(self, address: str, *, longest_seconds: float) -> bool:
        """Wait until the next request of an address, or the next event of a stream, may start.

        Args:
            address: host of the client.
            longest_seconds: maximum wait.

        Returns:
            Whether another address is active.

        Raises:
            TimeoutError: the wait would be longer. Nothing is charged.
        """
        account, now = self._account(address), self._clock()
        if self._is_alone(account, now):
            account.seconds = account.prepaid = account.free_at = 0.0
            return False
        share = self._read_meter(account, now)
        seconds = account.free_at - now
        if seconds > longest_seconds:
            raise TimeoutError
        account.started += 1
        account.prepaid += account.estimate
        account.free_at += account.estimate / share
        if seconds > _SHORTEST_WAIT_SECONDS:
            await self._sleep(seconds)
        return True

    def _account(self, address: str) -> _Account:
        key = address_key((address,))
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account()
        return account

    def _is_alone(self, account: _Account, now: float) -> bool:
        """Note a request of an address, and return whether no other address is active."""
        if account is not self._latest[0]:
            self._latest_other = self._latest
        self._latest = (account, now)
        return self._latest_other[0] is None or now - self._latest_other[1] > _ACTIVE_SECONDS

    def _read_meter(self, account: _Account, now: float) -> float:
        """Charge the time that an address has used since the last reading; return its share of the loop's time."""
        used, account.seconds = account.seconds, 0.0
        if account.started:
            account.estimate += _ESTIMATE_WEIGHT * (used / account.started - account.estimate)
            account.started = 0
        from_prepaid = min(used, account.prepaid)
        account.prepaid -= from_prepaid
        account.free_at = max(account.free_at, now - _AT_ONCE_SECONDS)
        share = self._share(account, now)
        account.free_at += (used - from_prepaid) / share
        return share

    def _share(self, account: _Account, now: float) -> float:
        """Return the share of an address, which is smaller if other addresses also wait for their next request."""
        if now - self._counted_at > _COUNT_SECONDS:
            self._counted_at = now
            self._waiting = {each for each in self._waiting if each.free_at > now}
        if account.free_at > now:
            self._waiting.add(account)
        return _SHARE / (len(self._waiting) or 1)
