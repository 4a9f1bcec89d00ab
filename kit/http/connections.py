"""Open connections of an HTTP server: their limits, in total and by address, and the end of those without progress.

The responses that clients do not read are limited too, because they stay in memory.

At every moment a connection is in one `Stage`. In all stages but one it waits for its client, and ends if it makes no
progress for the stage's time. In the stage `APP`, the app runs a task with its own time-outs. Once a second, one timer
of the server compares each connection with its previous state (a sweep), so requests set no timers.
"""

import asyncio
import resource
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Any, Final, Protocol

import structlog

from kit.http import metrics
from kit.http.addresses import address_key
from kit.http.token_bucket import TokenBucket
from kit.http.turnstile import Turnstile

log = structlog.get_logger(__name__)

SWEEP_SECONDS: Final = 1.0
"""Time between two sweeps, and so the maximum delay of a time-out."""

OTHER_DESCRIPTORS: Final = 256
"""Descriptors that a process reserves for everything except the connections of its largest listener."""

DISCARDED_BYTES: Final = 1024 * 1024
"""Maximum of received bytes that are dropped: the rest of a body that the app does not read, or data after the last
response. A client that sends more is disconnected.
"""
UNREAD_BYTES: Final = 32 * 1024 * 1024
"""Maximum size of the output that blocked clients have not read, of all connections together."""

ADDRESS_FRAMES_PER_SECOND: Final = 2_000
"""Maximum sustained rate of WebSocket frames of one address: ten times that of one WebSocket."""
ADDRESS_FRAMES_AT_ONCE: Final = 4_000
"""Frames of one address that are read without a pause."""

PROGRESS_BYTES: Final = 16 * 1024
"""Bytes of the output buffer that the client of a closed connection must read to make progress."""

_MAX_DEFAULT_CONNECTIONS: Final = 4_000
_MAX_CONNECTIONS: Final = 1_000_000  # without a limit of descriptors
_LOG_INTERVAL_SECONDS: Final = 60.0
_EVICTION_CANDIDATES: Final = 8
_SLICES_PER_TURN: Final = 32
"""Slices of received data that are parsed in one turn of the loop. One with a request takes some 50 µs."""


class Stage(Enum):
    """Stage of a connection, and the seconds without progress after which the connection ends; None: no such limit."""

    HEAD = "head", 10.0
    """The head of a request is not complete. Only the complete head counts as progress."""
    IDLE = "idle", 5.0
    """The client may send another request, or the rest of a body that the app has not read."""
    BODY = "body", 60.0
    """A task of the app waits for the request's body. The gateway's own time-out for a body is shorter."""
    APP = "app", None
    """A task of the app runs."""
    HANDSHAKE = "handshake", 10.0
    """The app has not accepted or refused the WebSocket yet."""
    BLOCKED = "blocked", 30.0
    """The client does not read, and the output buffer is full."""
    CLOSE_FRAME = "close frame", 10.0
    """The client has not responded to a close frame."""
    LINGERING = "lingering", 1.0
    """The last response is sent. Closing at once would reset the connection, and the client could lose the response."""
    CLOSING = "closing", 10.0
    """The connection is closed, and the client has not read all of its response."""

    def __init__(self, label: str, seconds: float | None) -> None:
        self.label = label
        self.seconds = seconds


_UNREAD_STAGES: Final = frozenset({Stage.BLOCKED, Stage.CLOSING})
"""Stages in which the client has not read the output."""


class Owner(Protocol):
    """Protocol object of a connection."""

    def stage(self) -> tuple[Stage, object]:
        """Return the stage, and a token that changes with each progress within the stage."""

    def end(self, stage: Stage) -> None:
        """End the connection, which has made no progress for the stage's time."""


class Transport(Protocol):
    """Methods of a transport that this module calls."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`."""

    def abort(self) -> None:
        """See `asyncio.WriteTransport`."""

    def get_write_buffer_size(self) -> int:
        """See `asyncio.WriteTransport`."""


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Limits of a listener's connections.

    Attributes:
        total: maximum number of open connections.
        per_address: maximum number of open connections of one address, or of one IPv6 /64 network.
        reserve: maximum number of connections above these limits. Only health checks are served on them.
        exempt: addresses and networks without a limit by address, such as a proxy's; `*` for all.
    """

    total: int = 128
    per_address: int = 128
    reserve: int = 32
    exempt: Sequence[str] = ()


@dataclass(slots=True, eq=False)
class Connection:
    """One open connection.

    Attributes:
        owner: protocol object of the connection. After an upgrade it is that of the WebSocket.
        transport: transport of the connection.
        address: key of the client's address for limits; None if the address has no limit.
        frames: allowance of WebSocket frames that the connections of the address share; None if it has no limit.
        is_reserve: whether the connection is above the limit, so that only health checks are served on it.
        stage: stage at the last sweep.
        token: progress token of the stage at the last sweep.
        since: time of the first sweep with this stage and token.
    """

    owner: Owner
    transport: Transport
    address: str | None
    is_reserve: bool
    frames: TokenBucket | None = None
    stage: Stage | None = None
    token: object = None
    since: float = 0.0


@dataclass(slots=True)
class _Group:
    """Connections of one address, or all connections.

    The oldest are first; a search moves busy connections to the end.
    """

    members: dict[Connection, None] = field(default_factory=dict)
    frames: TokenBucket | None = None

    def oldest_waiting(self) -> Connection | None:
        """Return a connection that waits for its client, among the first eight; None if all of them are busy."""
        for connection in list(islice(self.members, _EVICTION_CANDIDATES)):
            if connection.owner.stage()[0].seconds is not None:
                return connection
            del self.members[connection]  # to the end, so that the next search finds others
            self.members[connection] = None
        return None


class Connections:
    """Open connections of one listener.

    At a limit, a new connection replaces an old one that waits for its client, such as an idle one. If none is found,
    the new one is a reserve connection: health checks on it are served, and all other requests get 503.

    Attributes:
        turnstile: lets a few connections parse received data in each turn of the loop.
    """

    def __init__(self, listen: str, limits: ConnectionLimits) -> None:
        """Args:
        listen: `host:port`, the label of the metrics.
        limits: the limits.
        """
        self.turnstile = Turnstile(_SLICES_PER_TURN)
        self._limits = limits
        self._all = _Group()
        self._reserve = _Group()
        self._by_address: dict[str, _Group] = {}
        self._exempt = _Exempt(limits.exempt)
        self._listen = listen
        self._refused: dict[str, int] = {}
        self._next_log = 0.0
        metrics.OPEN.labels(listen).set_function(lambda: len(self))

    def __len__(self) -> int:
        return len(self._all.members) + len(self._reserve.members)

    def add(self, owner: Owner, transport: Transport) -> Connection:
        """Add a new connection. It may become a reserve connection, or be aborted at once."""
        peer = transport.get_extra_info("peername")
        address = None if self._exempt.contains(peer) else address_key(peer if isinstance(peer, tuple) else None)
        connection = Connection(owner, transport, address, is_reserve=False)
        group = self._by_address.get(address) if address is not None else None
        if group is not None and len(group.members) >= self._limits.per_address and not self._evict_from(group):
            self._add_to_reserve(connection, "address")
        elif len(self._all.members) >= self._limits.total and not self._evict_from(self._all):
            self._add_to_reserve(connection, "total")
        else:
            self._all.members[connection] = None
            if address is not None:
                # Look up the group again, because an eviction removes the group if it becomes empty.
                group = self._by_address.setdefault(address, _Group())
                group.members[connection] = None
                connection.frames = group.frames = group.frames or TokenBucket(
                    ADDRESS_FRAMES_PER_SECOND, ADDRESS_FRAMES_AT_ONCE, asyncio.get_running_loop().time()
                )
        return connection

    def remove(self, connection: Connection) -> None:
        """Remove a connection that has ended. Safe to repeat."""
        self._all.members.pop(connection, None)
        self._reserve.members.pop(connection, None)
        group = self._by_address.get(connection.address) if connection.address is not None else None
        if group is not None:
            group.members.pop(connection, None)
            if not group.members:
                del self._by_address[connection.address or ""]

    def sweep(self, now: float) -> None:
        """End the connections that have made no progress for the time of their stage. Call it every `SWEEP_SECONDS`.

        Args:
            now: time of the event loop, in seconds.
        """
        for connection in (*self._all.members, *self._reserve.members):
            try:
                self._check_progress(connection, now)
            except Exception as error:
                log.error("sweep of a connection failed", listen=self._listen, exc_info=error)
                connection.transport.abort()
        self._limit_unread()
        self._log_refused(now)

    def close(self) -> None:
        """Abort the connections that are still open. Call it after the server's shutdown."""
        for connection in (*self._all.members, *self._reserve.members):
            connection.transport.abort()
        metrics.OPEN.remove(self._listen)

    def _check_progress(self, connection: Connection, now: float) -> None:
        stage, token = connection.owner.stage()
        if stage is not connection.stage or token != connection.token:
            connection.stage, connection.token, connection.since = stage, token, now
        elif stage.seconds is not None and now - connection.since >= stage.seconds:
            if stage is not Stage.IDLE and stage is not Stage.LINGERING:  # the usual last stages
                metrics.ENDED.labels(self._listen, stage.label, "timeout").inc()
            connection.owner.end(stage)

    def _limit_unread(self) -> None:
        """Abort blocked connections until the unread output is within the limit.

        Those of the address with the most unread output come first.
        """
        unread: dict[Connection, int] = {}
        by_address: Counter[str | None] = Counter()
        for connection in (*self._all.members, *self._reserve.members):
            if connection.stage in _UNREAD_STAGES:
                unread[connection] = connection.transport.get_write_buffer_size()
                by_address[connection.address] += unread[connection]
        excess = sum(unread.values()) - UNREAD_BYTES
        for connection, size in sorted(unread.items(), key=lambda each: (by_address[each[0].address], each[1]))[::-1]:
            if excess <= 0:
                break
            metrics.ENDED.labels(self._listen, connection.owner.stage()[0].label, "unread").inc()
            connection.transport.abort()
            excess -= size

    def _evict_from(self, group: _Group) -> bool:
        """Abort a connection of the group that waits for its client; return whether one was found."""
        connection = group.oldest_waiting()
        if connection is None:
            return False
        metrics.ENDED.labels(self._listen, connection.owner.stage()[0].label, "limit").inc()
        self.remove(connection)
        connection.transport.abort()
        return True

    def _add_to_reserve(self, connection: Connection, limit: str) -> None:
        connection.is_reserve = True
        metrics.REFUSED.labels(self._listen, limit).inc()
        self._refused[limit] = self._refused.get(limit, 0) + 1
        if len(self._reserve.members) >= self._limits.reserve and not self._evict_from(self._reserve):
            connection.transport.abort()
        else:
            self._reserve.members[connection] = None

    def _log_refused(self, now: float) -> None:
        """Log refused connections, at most once a minute."""
        if self._refused and now >= self._next_log:
            log.warning("connections refused", listen=self._listen, open=len(self), **self._refused)
            self._refused = {}
            self._next_log = now + _LOG_INTERVAL_SECONDS


def check_proxy(value: str) -> str:
    """Return an address, a network or `*`. uvicorn would take any other text for a name that no proxy has.

    Raises:
        ValueError: the value is invalid. The message does not quote it.
    """
    if value != "*":
        try:
            ip_network(value)
        except ValueError:
            raise ValueError(
                "must be an IP address or a network without host bits, such as 10.0.0.7 or 10.0.0.0/8"
            ) from None
    return value


class _Exempt:
    """Addresses and networks that have no limit by address."""

    def __init__(self, entries: Sequence[str]) -> None:
        """Args:
        entries: addresses, networks and `*`, in the notation of uvicorn's `forwarded_allow_ips`.
        """
        self._is_everything = "*" in entries
        self._hosts: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in entries:
            try:
                self._networks.append(ip_network(entry, strict=False))
            except ValueError:
                self._hosts.add(entry)

    def contains(self, peer: object) -> bool:
        """Return whether the peer of a socket is exempt."""
        if self._is_everything or not isinstance(peer, tuple):  # a Unix socket has no address
            return True
        if not self._networks and not self._hosts:
            return False
        host = str(peer[0])
        if host in self._hosts:
            return True
        try:
            ip = ip_address(host)
        except ValueError:
            return False
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return any(ip in network for network in self._networks)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard limit, and return the resulting soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS refuses an unlimited soft limit
            return soft
    return hard


def max_connections() -> int:
    """Return the largest number of connections that fits into the hard limit of open descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else hard - OTHER_DESCRIPTORS


def default_connections() -> int:
    """Return the maximum number of connections of a listener without a setting: `max_connections()`, at most 4,000."""
    return max(1, min(_MAX_DEFAULT_CONNECTIONS, max_connections()))
