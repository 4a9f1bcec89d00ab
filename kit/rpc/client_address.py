"""Address of a client: stated by the gateway, in the metadata of a call, to a service that limits by address.

The gateway proves the statement with its service token. Any other caller of the service is believed nothing.
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
"""Service whose statements are believed."""

_ADDRESS: Final = "x-client-address"
_TOKEN: Final = "x-client-address-token"  # noqa: S105  name of a metadata entry


def client_network(host: str) -> str | None:
    """Return `address_key` of an IP address; None if the host is no IP address, such as that of a Unix socket."""
    key = address_key((host,))
    try:
        ipaddress.ip_network(key)
    except ValueError:
        return None
    return key


def address_metadata(host: str, token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata that states a client's address.

    Args:
        host: host of the client; without an IP address nothing is stated.
        token: token of the gateway.
    """
    network = client_network(host)
    return () if network is None else ((_ADDRESS, network), (_TOKEN, token))


async def stated_address(context: "grpc.aio.ServicerContext[Any, Any]", verifier: TokenVerifier) -> str | None:
    """Return the address or network of the client if the gateway stated it in this call; else None."""
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
