"""Addresses in HTTP: keys of clients for limits, and validation of the field `Host`."""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_IPV6_NETWORK_BITS: Final = 64  # usual prefix of one household or machine, which may use every address in it

_HOST: Final = re.compile(
    rb"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?"
)
"""`Host` of RFC 9110: a name, an IPv4 address, or an IPv6 address in brackets, and a port. The name may be empty."""


def address_key(address: Sequence[object] | None) -> str:
    """Return the key of a socket or ASGI client address: an IPv4 address, or the /64 network of an IPv6 address.

    One IPv6 caller can use every address of its network, so the network counts as one client.
    """
    return _host_key(str(address[0]) if address else "")


@lru_cache(maxsize=4096)
def _host_key(host: str) -> str:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:  # a Unix socket has no IP address
        return host
    if isinstance(ip, ipaddress.IPv4Address):
        return host
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, _IPV6_NETWORK_BITS), strict=False))


def is_valid_host(value: bytes) -> bool:
    """Return whether the value of a `Host` field is a host, or a host and a port, by the grammar of RFC 9110."""
    match = _HOST.fullmatch(value)
    if match is None or match["ipv6"] is None:
        return match is not None
    try:
        ipaddress.IPv6Address(match["ipv6"].decode())
    except ValueError:
        return False
    return True
