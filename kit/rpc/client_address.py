"""Address of a client: the gateway sends it in the metadata of a call to a service with limits per address.

The gateway authenticates the address with its service token. The service ignores addresses from all other callers.
"""

import ipaddress
from typing import Any, Final

import grpc
import structlog

from kit.auth.principal import TokenVerifier
from kit.http.addresses import address_key
from wallet.errors import WalletError

log = structlog.get_logger(__name__)

GATEWAY: Final = "gateway"
"""Name of the service whose addresses are accepted."""

_ADDRESS: Final = "x-client-address"
_TOKEN: Final = "x-client-address-token"  # noqa: S105  name of a metadata entry


def client_network(host: str) -> str | None:
    """Return the text by which clients with this IP address are counted; None if the host is not an IP address.

    It is the IPv4 address, or the /64 network of an IPv6 address. The client of a Unix socket has no IP address.
    """
    key = address_key((host,))
    try:
        ipaddress.ip_network(key)
    except ValueError:
        return None
    return key


def address_metadata(host: str, token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata with a client's address.

    Args:
        host: host of the client; if it is not an IP address, the metadata is empty.
        token: token of the gateway.
    """
    network = client_network(host)
    return () if network is None else ((_ADDRESS, network), (_TOKEN, token))


async def stated_address(context: "grpc.aio.ServicerContext[Any, Any]", verifier: TokenVerifier) -> str | None:
    """Return the address or network of the client if the gateway sent it with this call, otherwise None."""
    metadata = dict(context.invocation_metadata() or ())
    host, token = metadata.get(_ADDRESS), metadata.get(_TOKEN)
    if not isinstance(host, str):
        return None
    try:
        caller = await verifier.verify(token if isinstance(token, str) else "")
    except WalletError as error:
        log.warning("client address ignored", error=error.message)
        return None
    if not (caller.is_service and caller.subject == GATEWAY):
        log.warning("client address ignored", error="it was not stated by the gateway")
        return None
    return client_network(host.partition("/")[0])
