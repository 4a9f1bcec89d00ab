"""Client addresses as keys of limits."""

import ipaddress
from collections.abc import Sequence
from typing import Final

_IPV6_NETWORK_BITS: Final = 64  # usual prefix of one household or machine, which may use every address in it


def address_key(address: Sequence[object] | None) -> str:
    """Return the key of a socket or ASGI client address: an IPv4 address, or the /64 network of an IPv6 address.

    One IPv6 caller can use every address of its network, so the network counts as one client.
    """
    host = str(address[0]) if address else ""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:  # a Unix socket has no IP address
        return host
    if isinstance(ip, ipaddress.IPv4Address):
        return host
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, _IPV6_NETWORK_BITS), strict=False))
