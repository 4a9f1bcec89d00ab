"""Ports of the system: derived from the gateway's port, or free ports."""

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
# Below the usual ranges of ephemeral ports, so that no outgoing connection takes one during a restart.
FREE_RANGE = range(10_240, 32_768)
_SLICE = 512  # ports of FREE_RANGE reserved for one process


class PortError(Exception):
    """A port cannot be used. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback port of each process. The defaults are those of `make up`.

    All of them are below the usual ranges of ephemeral ports, from which the kernel takes ports for connections.
    """

    gateway: int = DEFAULT
    bank_grpc: int = 9051
    card_grpc: int = 9052
    analytics_grpc: int = 9053
    identity_grpc: int = 9054
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
    kafka_controller: int = 19093

    @classmethod
    def derive(cls, port: int) -> Self:
        """Return all ports for the gateway's `port`: each default plus the difference between `port` and 8000.

        Raises:
            PortError: a port would be privileged or above 65535.
        """
        usual = [value for _, value in cls().items()]
        low, high = UNPRIVILEGED.start, DEFAULT + UNPRIVILEGED.stop - 1 - max(usual)
        if not low <= port <= high:
            raise PortError(
                f"PORT={port} is out of range, because all ports move with it: choose one from {low} to {high}"
            )
        return cls(*(value + port - DEFAULT for value in usual))

    @classmethod
    def free(cls) -> Self:
        """Return free ports, for tests and the demo."""
        return cls(*free_ports(len(fields(cls))))

    def items(self) -> Iterator[tuple[str, int]]:
        """Return each port with its name."""
        return zip((f.name for f in fields(self)), astuple(self), strict=True)


def free_ports(count: int) -> list[int]:
    """Return `count` different free loopback ports.

    No other process gets these ports from this function. This process has hundreds of ports of its own, and gets the
    same one again after all the others.

    Raises:
        PortError: there are not enough free ports.
    """
    ports: list[int] = []
    with ExitStack() as listeners:
        for port in islice(_reserved_ports(os.getpid()), _SLICE):
            if listener := _try_listen(port):
                listeners.enter_context(listener)
                ports.append(port)
            if len(ports) == count:
                return ports
    raise PortError(f"fewer than {count} of {_SLICE} ports are free")


@cache
def _reserved_ports(pid: int) -> Iterator[int]:  # noqa: ARG001  cache key: a forked process needs its own slice
    """Reserve a slice of FREE_RANGE until this process ends, and cycle through it.

    Without the reservation, another process could choose the same port before this process listens on it.
    """
    folder = Path(tempfile.gettempdir()) / f"wallet-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    slices = range(FREE_RANGE.start, FREE_RANGE.stop - _SLICE + 1, _SLICE)
    for start in random.sample(slices, k=len(slices)):
        descriptor = os.open(folder / str(start), os.O_RDWR | os.O_CREAT, 0o600)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cycle(range(start, start + _SLICE))  # the lock is held until the process ends
        os.close(descriptor)
    raise PortError(f"{len(slices)} processes hold all port slices; wait until one of them ends")


def check_free(wanted: Mapping[str, int]) -> None:
    """Check that every port is free.

    Args:
        wanted: ports by name of the process that needs the port.

    Raises:
        PortError: a port is in use; the message has the port, the process and the setting that moves all ports.
    """
    for name, port in wanted.items():
        listener = _try_listen(port)
        if listener is None:
            raise PortError(
                f"port {port} is in use, and {name} needs it: stop what listens there, or move the whole stack with "
                f"another PORT (for example PORT={DEFAULT + 10})"
            )
        listener.close()


def _try_listen(port: int) -> socket.socket | None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(1)
    except OSError:
        listener.close()
        return None
    return listener
