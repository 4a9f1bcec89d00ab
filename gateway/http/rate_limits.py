"""Rate limits per caller and per address: sliding-window counters in this process, or in a Redis shared by gateways.

While the shared Redis is unavailable, each gateway counts in its own memory, so the limits apply per gateway.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import ceil, floor, inf
from typing import Annotated, Final, NamedTuple, Protocol, Self, TypeVar

import structlog
from limits import parse
from limits.aio.storage import RedisStorage
from limits.errors import StorageError
from prometheus_client import Counter
from pydantic import AfterValidator
from redis.asyncio import BlockingConnectionPool

from gateway.http.pacing import Pacer
from gateway.http.time_share import TimeShare
from kit.auth.principal import Principal
from kit.http.addresses import address_key
from kit.runtime.server_urls import parse_redis_url
from wallet.errors import RateLimited

log = structlog.get_logger(__name__)

REFUSED = Counter("wallet_gateway_rate_limited", "Requests rejected by a rate limit, by limit.", ["limit"])
DELAYED = Counter(
    "wallet_gateway_rate_delayed", "Times that a subscription had to wait because of a rate limit, by limit.", ["limit"]
)
STORE_ERRORS = Counter(
    "wallet_gateway_rate_store_errors", "Failed calls to the Redis that stores the shared counters of the rate limits."
)

MEMORY: Final = "memory://"

_REDIS_TIMEOUT_SECONDS: Final = 0.1
_POOL_TIMEOUT_SECONDS: Final = 0.5
_POOL_SIZE: Final = 8  # even one connection is fast enough; a larger pool would only move the queue to Redis
_RETRY_PAUSE_SECONDS: Final = 1.0
_STREAMS_PER_SECOND: Final = 50.0
_STREAMS_AT_ONCE: Final = 4
_LONGEST_SHARE_WAIT_SECONDS: Final = 5.0
_TIME: Final = "time"  # name of the limit in errors and metrics


Answer = TypeVar("Answer")


def _check_rate(text: str) -> str:
    try:
        parse(text)
    except ValueError:
        raise ValueError("must be a number of hits per period, such as 6000/minute or 20 per 5 minutes") from None
    return text


Rate = Annotated[str, AfterValidator(_check_rate)]
"""A number of hits per period in the notation of the library `limits`: `6000/minute`, `20 per 5 minutes`."""


def _check_store(url: str) -> str:
    if url.startswith(("redis:", "rediss:")):
        parse_redis_url(url)
    elif url != MEMORY:
        raise ValueError("must be memory:// or a URL such as redis://user:password@host:6379/0")
    return url


RateStore = Annotated[str, AfterValidator(_check_store)]
"""`memory://`, or the URL of a Redis; it may have a password."""


@dataclass(frozen=True, kw_only=True)
class RateLimitOptions:
    """Rates of the gateway's limits.

    Attributes:
        is_on: False disables all limits.
        store: URL of the counters' storage: `memory://`, or `redis://host:port/0`, which several gateways share.
        requests: requests of one caller; each message on a WebSocket counts as a request.
        cost: for one caller, the estimated cost of GraphQL operations plus the cost of parsing and validating documents
            that the gateway has not cached.
        anonymous: requests of one address without a valid token. New WebSockets, and requests with a refresh token,
            have the same rate, and each kind is counted for itself.
        anonymous_cost: like `cost`, for one address and its requests without a token.
        login: requests of one address that register a user or log in; and for one caller, changes of the password.
    """

    is_on: bool = True
    store: RateStore = MEMORY
    requests: Rate = "6000/minute"
    cost: Rate = "3000000/minute"
    anonymous: Rate = "600/minute"
    anonymous_cost: Rate = "750000/minute"
    login: Rate = "60/minute"


class Limit:
    """One limit: an amount per period for each caller or address. `name` appears in headers, errors and metrics."""

    def __init__(self, name: str, rate: Rate) -> None:
        item = parse(rate)
        self.name = name
        self.amount = item.amount
        self.seconds = item.get_expiry()
        self.policy = f'"{name}";q={self.amount};w={self.seconds}'

    def key(self, client: str) -> str:
        """Return the storage key of a caller or address. It includes the rate: a new rate starts with new counts."""
        return f"{self.name}/{client}/{self.amount}/{self.seconds}"


class RateLimitStatus(NamedTuple):
    """Remaining quota of one limit.

    Attributes:
        limit: the limit.
        remaining: hits that are allowed now.
        reset_seconds: seconds until one more hit is allowed.
    """

    limit: Limit
    remaining: int
    reset_seconds: int

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """`RateLimit-Policy` and `RateLimit` as in the IETF draft (draft-ietf-httpapi-ratelimit-headers-10)."""
        rate = f'"{self.limit.name}";r={self.remaining};t={self.reset_seconds}'
        return [(b"ratelimit-policy", self.limit.policy.encode()), (b"ratelimit", rate.encode())]


class SlidingWindowStorage(Protocol):
    """Sliding-window-counter storage, as implemented by the storages of `limits`.

    Hits are counted in fixed windows of `expiry` seconds. The previous window counts in proportion to its overlap with
    the last `expiry` seconds.
    """

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` hits unless the total would exceed the limit; return whether they were counted."""

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the previous window's count and seconds until its expiry, then those of the current window."""


@dataclass(slots=True)
class _Windows:
    """Counts by key in the current and in the previous window. `number` is the current window's index since 1970."""

    number: float = 0.0
    current: dict[str, int] = field(default_factory=dict)
    previous: dict[str, int] = field(default_factory=dict)

    def advance_to(self, number: float) -> None:
        self.previous = self.current if number == self.number + 1 else {}
        self.number, self.current = number, {}


class MemorySlidingWindowStorage:
    """Sliding-window storage in this process.

    The memory storage of `limits` scans all keys for expired ones on each request, so a request's cost grows with the
    number of callers. Here the counts are dropped together with their window.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Args:
        clock: returns the current time in seconds.
        """
        self._clock = clock
        self._windows_by_length: dict[int, _Windows] = {}

    @property
    def entry_count(self) -> int:
        """Number of counters in memory."""
        return sum(len(each.current) + len(each.previous) for each in self._windows_by_length.values())

    async def acquire_sliding_window_entry(  # noqa: D102  see `SlidingWindowStorage`
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        windows, elapsed = self._windows_at_now(expiry)
        count = windows.current.get(key, 0) + amount
        if _weighted_count(windows.previous.get(key, 0), expiry - elapsed, count, expiry) > limit:
            return False
        windows.current[key] = count
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:  # noqa: D102  as above
        windows, elapsed = self._windows_at_now(expiry)
        return windows.previous.get(key, 0), expiry - elapsed, windows.current.get(key, 0), 2 * expiry - elapsed

    def _windows_at_now(self, seconds: int) -> tuple[_Windows, float]:
        """Return the windows of this length and the elapsed seconds of the current one."""
        number, elapsed = divmod(self._clock(), seconds)
        windows = self._windows_by_length.get(seconds)
        if windows is None:
            windows = self._windows_by_length[seconds] = _Windows()
        if number != windows.number:
            windows.advance_to(number)
        return windows, elapsed


class _StorageWithFallback:
    """Shared storage, and a storage in this process for the time in which the shared one is unavailable."""

    def __init__(self, shared: SlidingWindowStorage, local: SlidingWindowStorage) -> None:
        self._shared = shared
        self._local = local
        self._use_shared_from = 0.0

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return await self._call(lambda storage: storage.acquire_sliding_window_entry(key, limit, expiry, amount))

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        return await self._call(lambda storage: storage.get_sliding_window(key, expiry))

    async def _call(self, call: Callable[[SlidingWindowStorage], Awaitable[Answer]]) -> Answer:
        if time.monotonic() >= self._use_shared_from:
            try:
                return await call(self._shared)
            except StorageError as error:
                STORE_ERRORS.inc()
                log.warning(
                    "rate limit store unavailable, counting in memory",
                    seconds=_RETRY_PAUSE_SECONDS,
                    error=repr(error.storage_error),
                )
                self._use_shared_from = time.monotonic() + _RETRY_PAUSE_SECONDS
        return await call(self._local)


def _weighted_count(previous: int, overlap_seconds: float, current: int, seconds: int) -> int:
    """Estimate the hits of the last `seconds`, assuming that those of the previous window were spread evenly."""
    return floor(previous * overlap_seconds / seconds + current)


class RateLimiter:
    """Counts the hits of callers and rejects those above a limit."""

    def __init__(
        self,
        options: RateLimitOptions,
        local: SlidingWindowStorage | None = None,
        shared: SlidingWindowStorage | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Args:
        options: the rates.
        local: storage in this process, used without `shared` or while `shared` is unavailable.
        shared: storage that several gateways share.
        sleep: waits for some seconds.
        """
        self.requests = Limit("requests", options.requests)
        self.cost = Limit("cost", options.cost)
        self.anonymous = Limit("anonymous", options.anonymous)
        self.anonymous_cost = Limit("anonymous-cost", options.anonymous_cost)
        self.login = Limit("sign-in", options.login)  # released name, which clients and dashboards use
        self.session = Limit("session", options.anonymous)
        self.websocket = Limit("websocket", options.anonymous)
        self.health = Limit("health", options.anonymous)  # only paced
        self.preflight = Limit("preflight", options.anonymous)  # only paced
        self._is_on = options.is_on
        self.time = TimeShare(sleep=sleep)
        self._pacer = Pacer(sleep=sleep)
        self._stream_pacer = Pacer(
            sleep=sleep, min_per_second=_STREAMS_PER_SECOND, longest_wait_seconds=inf, at_once=_STREAMS_AT_ONCE
        )
        local = local or MemorySlidingWindowStorage()
        self._storage = local if shared is None else _StorageWithFallback(shared, local)
        self._sleep = sleep

    @classmethod
    @asynccontextmanager
    async def connect(cls, options: RateLimitOptions) -> AsyncIterator[Self]:
        """Open a limiter with the storage that the options name. Redis may start later than the gateway."""
        if options.store == MEMORY:
            yield cls(options)
            return
        pool = BlockingConnectionPool.from_url(  # a plain pool raises an error if all its connections are in use
            options.store,
            max_connections=_POOL_SIZE,
            timeout=_POOL_TIMEOUT_SECONDS,
            socket_timeout=_REDIS_TIMEOUT_SECONDS,
            socket_connect_timeout=_REDIS_TIMEOUT_SECONDS,
        )
        storage = RedisStorage(
            f"async+{options.store}",
            implementation="redispy",
            wrap_exceptions=True,
            key_prefix="wallet:rates",
            connection_pool=pool,  # type: ignore[arg-type]  # documented for redispy, typed for coredis only
        )
        try:
            yield cls(options, shared=storage)
        finally:
            await pool.disconnect()

    def limit_for(self, caller: Principal | None, address: Sequence[object] | None) -> tuple[Limit, str]:
        """Return the limit of a request, and the client for which the request counts.

        Args:
            caller: the verified caller; None if the request has no valid token.
            address: ASGI's `client`, (host, port). It is used only for requests without a caller.
        """
        if caller is None:
            return self.anonymous, address_key(address)
        return self.requests, caller.scope

    def cost_limit_for(self, caller: Principal | None, address: Sequence[object] | None) -> tuple[Limit, str]:
        """Return the limit of a GraphQL document's cost, and the client who pays; arguments as in `limit_for`."""
        if caller is None:
            return self.anonymous_cost, address_key(address)
        return self.cost, caller.scope

    async def pace(self, limit: Limit, client: str, amount: int = 1) -> None:
        """Wait until the client's next request may start, so that a burst of requests is spread over time.

        Call it before `hit`: refused requests take time, too.

        Args:
            limit: limit of the client.
            client: the client.
            amount: number of requests that this one counts as.

        Raises:
            RateLimited: too many requests of the client wait.
        """
        if not self._is_on:
            return
        try:
            await self._pacer.wait(limit.key(client), limit.amount / limit.seconds, amount)
        except TimeoutError:
            REFUSED.labels(limit.name).inc()
            raise RateLimited(limit.name, "1") from None

    async def share_time(self, address: str, *, longest_seconds: float = _LONGEST_SHARE_WAIT_SECONDS) -> bool:
        """Wait until the next work of an address may start. Only addresses that use much time wait.

        Args:
            address: host of the client.
            longest_seconds: maximum wait.

        Returns:
            Whether the address shares the time with others that use little.

        Raises:
            RateLimited: the wait would be longer.
        """
        if not self._is_on:
            return False
        try:
            return await self.time.wait(address, longest_seconds=longest_seconds)
        except TimeoutError:
            REFUSED.labels(_TIME).inc()
            raise RateLimited(_TIME, "1") from None

    async def pace_stream(self, address: str) -> None:
        """Wait until the next subscription of an address may start: four at once, and then 50 a second.

        A start has calls to several services and takes about 8 ms of the processor. Clients may wait for long, as after
        a restart, when all of them subscribe again.

        Args:
            address: host of the client.
        """
        if self._is_on:
            await self._stream_pacer.wait(address_key((address,)), 0)

    async def hit(self, limit: Limit, client: str, amount: int = 1) -> None:
        """Count `amount` hits of a client.

        Raises:
            RateLimited: the limit would be exceeded. Nothing was counted; the error has the seconds to wait.
        """
        if not await self._acquire(limit, client, amount):
            REFUSED.labels(limit.name).inc()
            raise RateLimited(limit.name, str((await self._read_status(limit, client)).reset_seconds))

    async def wait(self, limit: Limit, client: str, amount: int) -> None:
        """Count `amount` hits of a client as soon as the limit allows it.

        An amount above the limit is counted as the limit.
        """
        while not await self._acquire(limit, client, min(amount, limit.amount)):
            DELAYED.labels(limit.name).inc()
            await self._sleep((await self._read_status(limit, client)).reset_seconds)

    async def _acquire(self, limit: Limit, client: str, amount: int) -> bool:
        """Count hits, and return whether the limit allows them."""
        if not self._is_on:
            return True
        return await self._storage.acquire_sliding_window_entry(limit.key(client), limit.amount, limit.seconds, amount)

    async def status(self, limit: Limit, client: str) -> RateLimitStatus | None:
        """Return the remaining quota of a client; None if limits are off."""
        return await self._read_status(limit, client) if self._is_on else None

    async def _read_status(self, limit: Limit, client: str) -> RateLimitStatus:
        seconds = limit.seconds
        window = await self._storage.get_sliding_window(limit.key(client), seconds)
        previous, previous_seconds, current, current_seconds = window
        # The hits of the previous window expire one by one. Those of the current window begin to expire when it ends.
        next_previous = previous_seconds % (seconds / previous) if previous else seconds
        next_current = current_seconds % seconds or seconds
        return RateLimitStatus(
            limit,
            remaining=max(0, limit.amount - _weighted_count(previous, previous_seconds, current, seconds)),
            reset_seconds=max(1, ceil(min(next_previous, next_current))) if previous or current else 1,
        )
