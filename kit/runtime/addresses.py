"""Addresses that processes listen on, `host:port` with IPv6 addresses in brackets, and gRPC targets."""

import re
import socket
from ipaddress import IPv6Address
from typing import Final

_ADDRESS: Final = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z._-]+)):(?P<port>[0-9]{1,5})")
_IPV6_CHARACTERS: Final = frozenset("0123456789abcdefABCDEF:.")
_MAX_PORT: Final = 2**16 - 1
_EXAMPLES: Final = "127.0.0.1:8000, [::1]:8000 or gateway.example:8000"
_TARGET_SCHEMES: Final = frozenset({"dns", "ipv4", "ipv6"})
_TARGET_EXAMPLES: Final = "127.0.0.1:50051, dns:///bank.example:50051 or ipv4:10.0.0.1:50051,10.0.0.2:50051"


class ListenError(OSError):
    """The process cannot listen on an address. The message has the address and the reason."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")


def split_address(address: str) -> tuple[str, int]:
    """Return the host and the port of `host:port`. The host of `[::1]:8000` is `::1`.

    Raises:
        ValueError: the address is invalid. The message shows valid addresses and does not quote the invalid one.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        if address.count(":") > 1 and not set(address) - _IPV6_CHARACTERS:
            raise ValueError("must have an IPv6 address in brackets, and a port, such as [::1]:8000")
        raise ValueError(f"must be a host and a port, such as {_EXAMPLES}")
    if not 0 < (port := int(match["port"])) <= _MAX_PORT:
        raise ValueError(f"must have a port from 1 to {_MAX_PORT}, such as {_EXAMPLES}")
    if match["ipv6"] is None:
        return match["name"], port
    try:
        IPv6Address(match["ipv6"])
    except ValueError:
        raise ValueError("must have a valid IPv6 address in brackets, such as [::1]:8000") from None
    return match["ipv6"], port


def target_addresses(target: str) -> list[str]:
    """Return the addresses of a gRPC target: `127.0.0.1:1`, `dns:///bank:1`, or several as in `ipv4:10.0.0.1:1,…`."""
    scheme, colon, rest = target.partition(":")
    return (rest.rpartition("/")[2] if colon and scheme in _TARGET_SCHEMES else target).split(",")


def check_target(target: str) -> str:
    """Return a gRPC target whose addresses all have a host and a port. gRPC itself would use port 443 if there is none.

    Raises:
        ValueError: the target is invalid. The message shows valid targets and does not quote the invalid one.
    """
    for address in target_addresses(target):
        try:
            split_address(address)
        except ValueError:
            raise ValueError(f"must be a host and a port, such as {_TARGET_EXAMPLES}") from None
    return target


def open_listener(address: str) -> socket.socket:
    """Return a socket that listens on an address. `[::]` accepts IPv4 too, as gRPC's listeners do.

    For a host name, the socket listens on the first IPv4 address, or on the first IPv6 address if there is no IPv4
    address.

    Args:
        address: see `split_address`.

    Raises:
        ListenError: the port is in use, the host is unknown, or its address is not one of this machine.
    """
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, resolved = min(found, key=lambda each: each[0] != socket.AF_INET)
        is_any = family == socket.AF_INET6 and not int(IPv6Address(resolved[0]))
        return socket.create_server(resolved, family=family, dualstack_ipv6=is_any and socket.has_dualstack_ipv6())
    except OSError as error:
        raise ListenError(address, (error.strerror or str(error)).partition(" (while")[0]) from error
