"""How much one caller may ask for in a window of time that slides: counted by `limits`, in this process, or in a Redis
that several gateways share.

While that Redis is away each gateway counts for itself: whoever asks is neither refused nor let through uncounted.
"""

import ipaddress
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Annotated, Final, Protocol, Self, TypeVar

import structlog
from limits import parse
from limits.aio.storage import RedisStorage
from limits.errors import StorageError
from prometheus_client import Counter
from pydantic import AfterValidator
from redis.asyncio import BlockingConnectionPool

from kit.auth.principal import Principal
from wallet.errors import RateLimited

log = structlog.get_logger(__name__)

REFUSED = Counter("wallet_gateway_rate_limited", "Requests refused because their caller asked for too much.", ["limit"])
STORE_ERRORS = Counter("wallet_gateway_rate_store_errors", "Times that the shared store of rates did not answer.")

MEMORY: Final = "memory://"

_PATIENCE_SECONDS: Final = 0.1
_QUEUE_SECONDS: Final = 0.5
_CONNECTIONS: Final = 8  # one is as fast as this process: more of them only wait beside each other
_PAUSE_SECONDS: Final = 1.0
_OWN_NETWORK_BITS: Final = 64  # what one household or one machine is given of IPv6, and may change in at will


Answer = TypeVar("Answer")


def _is_rate(text: str) -> str:
    parse(text)
    return text


Rate = Annotated[str, AfterValidator(_is_rate)]
"""So much in so long, as `limits` reads it: `6000/minute`, `20 per 5 minutes`."""


@dataclass(frozen=True, kw_only=True)
class RateOptions:
    """How much is allowed; all of it without `is_on`.

    Attributes:
        is_on: whether anything is counted.
        store: where, as a URL: `memory://`, or `redis://host:port/0`, which several gateways share.
        requests: by caller; a message on a WebSocket is one, too.
        cost: of the graph, as estimated, by caller.
        anonymous: requests without a valid token and new WebSockets, by address.
        sign_in: requests that make users or tokens, by address.
    """

    is_on: bool = True
    store: str = MEMORY
    requests: Rate = "6000/minute"
    cost: Rate = "600000/minute"
    anonymous: Rate = "600/minute"
    sign_in: Rate = "60/minute"


class Limit:
    """So much of something in so long, by whoever asks. `name` is what callers, logs and metrics know it by."""

    def __init__(self, name: str, rate: Rate) -> None:
        item = parse(rate)
        self.name = name
        self.amount = item.amount
        self.seconds = item.get_expiry()
        self.policy = f'"{name}";q={self.amount};w={self.seconds}'

    def key(self, who: str) -> str:
        """What is counted for this caller or address: apart from what another rate had counted before a restart."""
        return f"{self.name}/{who}/{self.amount}/{self.seconds}"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left of a limit: `remaining` now, and one more in `reset_seconds`."""

    limit: Limit
    remaining: int
    reset_seconds: int

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """As the IETF's draft on RateLimit header fields has them (draft-ietf-httpapi-ratelimit-headers-10)."""
        rate = f'"{self.limit.name}";r={self.remaining};t={self.reset_seconds}'
        return [(b"ratelimit-policy", self.limit.policy.encode()), (b"ratelimit", rate.encode())]


class Store(Protocol):
    """Where is counted, in windows of `expiry` seconds each, of which the one before weighs for as long as it reaches
    into the last so many seconds. All storages of `limits` that know a sliding window are such.
    """

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Counts, unless that passes the limit; whether it did."""

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """The count of the window before and for how long it still weighs, that of this one and how long it will."""


@dataclass(slots=True)
class _Window:
    """What was counted, by key, in the window of this number and in the one before it."""

    number: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)

    def turn_to(self, number: float) -> None:
        self.before = self.counts if number == self.number + 1 else {}
        self.number, self.counts = number, {}


class Windows:
    """The store in this process. `limits`' own looks at each request through all callers for those that are gone, so
    that what a request costs grows with their number; here what was counted goes with its window.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Args:
        clock: in seconds, as all windows begin by it.
        """
        self._clock = clock
        self._of: dict[int, _Window] = {}

    @property
    def remembered(self) -> int:
        """How many counts are kept."""
        return sum(len(each.counts) + len(each.before) for each in self._of.values())

    async def acquire_sliding_window_entry(  # noqa: D102  as `Store`
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        window, passed = self._now(expiry)
        count = window.counts.get(key, 0) + amount
        if _weighted(window.before.get(key, 0), expiry - passed, count, expiry) > limit:
            return False
        window.counts[key] = count
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:  # noqa: D102  as above
        window, passed = self._now(expiry)
        return window.before.get(key, 0), expiry - passed, window.counts.get(key, 0), 2 * expiry - passed

    def _now(self, seconds: int) -> tuple[_Window, float]:
        """The window at hand and what has passed of it."""
        number, passed = divmod(self._clock(), seconds)
        window = self._of.get(seconds)
        if window is None:
            window = self._of[seconds] = _Window()
        if number != window.number:
            window.turn_to(number)
        return window, passed


def _weighted(before: int, weighs_seconds: float, count: int, seconds: int) -> int:
    """What was counted in the last so many seconds, taken that the window before was filled evenly."""
    return floor(before * weighs_seconds / seconds + count)


class Rates:
    """Counts what callers ask for, and refuses what is too much."""

    def __init__(
        self,
        options: RateOptions,
        own: Store | None = None,
        shared: Store | None = None,
    ) -> None:
        """Args:
        options: how much is allowed.
        own: where it is counted, or would be while what is shared is away.
        shared: where several gateways count together.
        """
        self.requests = Limit("requests", options.requests)
        self.cost = Limit("cost", options.cost)
        self.anonymous = Limit("anonymous", options.anonymous)
        self.sign_in = Limit("sign-in", options.sign_in)
        self._is_on = options.is_on
        self._own = own or Windows()
        self._shared = shared
        self._shared_from = 0.0

    @classmethod
    @asynccontextmanager
    async def running(cls, options: RateOptions) -> AsyncIterator[Self]:
        """As the options have it. A Redis need not be there yet."""
        if options.store == MEMORY:
            yield cls(options)
            return
        pool = BlockingConnectionPool.from_url(  # the other one fails where more ask at once than it may connect
            options.store,
            max_connections=_CONNECTIONS,
            timeout=_QUEUE_SECONDS,
            socket_timeout=_PATIENCE_SECONDS,
            socket_connect_timeout=_PATIENCE_SECONDS,
        )
        storage = RedisStorage(
            f"async+{options.store}",
            implementation="redispy",
            wrap_exceptions=True,
            key_prefix="wallet:rates",
            connection_pool=pool,  # type: ignore[arg-type]  # as its documentation has it
        )
        try:
            yield cls(options, shared=storage)
        finally:
            await pool.disconnect()

    def of(self, caller: Principal | None, client: Sequence[object] | None) -> tuple[Limit, str]:
        """What requests count against, and as whose: a caller's own, or those of the address that it comes from."""
        if caller is None:
            return self.anonymous, address_of(client)
        return self.requests, caller.scope

    async def count(self, limit: Limit, who: str, amount: int = 1) -> None:
        """Counts `amount` more of what is limited for this caller or address.

        Raises:
            RateLimited: it would be too much, and is not counted; says when to come back.
        """
        if not self._is_on:
            return
        what = limit.key(who), limit.amount, limit.seconds, amount
        if not await self._ask(lambda store: store.acquire_sliding_window_entry(*what)):
            REFUSED.labels(limit.name).inc()
            raise RateLimited(limit.name, str((await self._standing(limit, who)).reset_seconds))

    async def standing(self, limit: Limit, who: str) -> Standing | None:
        """What is left to this caller or address; None where nothing is counted."""
        return await self._standing(limit, who) if self._is_on else None

    async def _standing(self, limit: Limit, who: str) -> Standing:
        key, seconds = limit.key(who), limit.seconds
        window = await self._ask(lambda store: store.get_sliding_window(key, seconds))
        before, weighs_seconds, count, lasts_seconds = window
        # The next one that is given back is of the window before, one by one, or all that there is of this window.
        next_of_before = weighs_seconds % (seconds / before) if before else seconds
        next_of_this = lasts_seconds % seconds or seconds
        return Standing(
            limit,
            remaining=max(0, limit.amount - _weighted(before, weighs_seconds, count, seconds)),
            reset_seconds=max(1, ceil(min(next_of_before, next_of_this))) if before or count else 1,  # of nothing, now
        )

    async def _ask(self, ask: Callable[[Store], Awaitable[Answer]]) -> Answer:
        if self._shared is not None and time.monotonic() >= self._shared_from:
            try:
                return await ask(self._shared)
            except StorageError as error:
                STORE_ERRORS.inc()
                log.warning("rates are counted here alone", seconds=_PAUSE_SECONDS, error=repr(error.storage_error))
                self._shared_from = time.monotonic() + _PAUSE_SECONDS
        return await ask(self._own)


def address_of(client: Sequence[object] | None) -> str:
    """Whom an address counts as: itself, or all of its network where one caller has as many as they like."""
    host = str(client[0]) if client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a Unix socket has none
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _OWN_NETWORK_BITS), strict=False))
