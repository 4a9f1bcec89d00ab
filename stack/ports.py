"""Every port of the system, all derived from one."""

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import astuple, dataclass, fields
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Self

HOST = "127.0.0.1"
DEFAULT = 8000
UNPRIVILEGED = range(1024, 65536)
# Below every usual range of ephemeral ports, so that no outgoing connection takes one while its owner restarts.
FREE_RANGE = range(10_240, 32_768)
_SLICE = 512  # ports of FREE_RANGE that one process picks from


class PortError(Exception):
    """The ports asked for cannot be had; the message is for a person and says what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The loopback port of each part. The defaults are those of `make up`."""

    gateway: int = DEFAULT
    bank_grpc: int = 50051
    card_grpc: int = 50052
    analytics_grpc: int = 50053
    identity_grpc: int = 50054
    gateway_admin: int = 9100
    bank_admin: int = 9101
    card_admin: int = 9102
    analytics_admin: int = 9103
    identity_admin: int = 9104
    acquirer: int = 8090
    card_webhooks: int = 8091
    postgres: int = 15432
    kafka: int = 19092
    clickhouse: int = 18123

    @classmethod
    def derive(cls, port: int) -> Self:
        """All ports, as far from their defaults as the gateway's `port` is from 8000.

        Raises:
            PortError: one of them would be no port that an ordinary user may open.
        """
        usual = [value for _, value in cls().items()]
        low, high = UNPRIVILEGED.start, DEFAULT + UNPRIVILEGED.stop - 1 - max(usual)
        if not low <= port <= high:
            raise PortError(
                f"PORT={port} does not work, since every port moves with it: choose one from {low} to {high}"
            )
        return cls(*(value + port - DEFAULT for value in usual))

    @classmethod
    def free(cls) -> Self:
        """Ports that nobody listens on now, for a stack beside others: tests, the demo."""
        return cls(*free_ports(len(fields(cls))))

    def items(self) -> Iterator[tuple[str, int]]:
        """Each port with its name."""
        return zip((f.name for f in fields(self)), astuple(self), strict=True)


def free_ports(count: int) -> list[int]:
    """`count` different loopback ports that nobody listens on now. No other process is given any of them by this, and
    this one not before hundreds of others.
    """
    found: list[int] = []
    with ExitStack() as held:
        for port in islice(_own_ports(os.getpid()), _SLICE):
            if listener := _bound(port):
                held.enter_context(listener)
                found.append(port)
            if len(found) == count:
                return found
    raise PortError(f"there are no {count} free ports among {_SLICE}")


@cache
def _own_ports(pid: int) -> Iterator[int]:  # noqa: ARG001  a fork is another process
    """The part of FREE_RANGE that is this process's until it ends, over and over: between the choice of a port and the
    moment that somebody listens on it, nobody else must choose it.
    """
    folder = Path(tempfile.gettempdir()) / f"wallet-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    slices = range(FREE_RANGE.start, FREE_RANGE.stop - _SLICE + 1, _SLICE)
    for start in random.sample(slices, k=len(slices)):
        descriptor = os.open(folder / str(start), os.O_RDWR | os.O_CREAT, 0o600)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cycle(range(start, start + _SLICE))  # the lock is held for as long as the process lives
        os.close(descriptor)
    raise PortError(f"{len(slices)} processes have chosen ports already; wait until one of them ends")


def check_free(wanted: Mapping[str, int]) -> None:
    """Returns if every port of `wanted` (what wants it, the port) can be listened on.

    Raises:
        PortError: naming the first that cannot, what wanted it and the setting that moves it.
    """
    for name, port in wanted.items():
        listener = _bound(port)
        if listener is None:
            raise PortError(
                f"port {port} is in use, and {name} needs it: stop what listens there, or move the whole stack with "
                f"another PORT (for example PORT={DEFAULT + 10})"
            )
        listener.close()


def _bound(port: int) -> socket.socket | None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(1)
    except OSError:
        listener.close()
        return None
    return listener
