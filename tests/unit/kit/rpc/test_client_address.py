"""Client addresses in metadata: used if the gateway sent them, ignored from all other callers."""

from typing import Any, cast

import pytest

from kit.auth.principal import Role
from kit.rpc.client_address import GATEWAY, address_metadata, client_network, stated_address
from tests.conftest import Keys


class Context:
    """gRPC context of a call with the given metadata."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


async def read_address(keys: Keys, *metadata: tuple[str, str]) -> str | None:
    return await stated_address(cast("Any", Context(*metadata)), keys.verifier())


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("", None),
        ("/run/socket", None),
    ],
)
def test_client_network_is_the_ipv4_address_or_the_ipv6_network(host: str, network: str | None) -> None:
    assert client_network(host) == network


@pytest.mark.parametrize("host", ["203.0.113.7", "2001:db8:1:2:3:4:5:6"])
async def test_address_that_the_gateway_sends_is_used(keys: Keys, host: str) -> None:
    assert await read_address(keys, *address_metadata(host, keys.service(GATEWAY))) == client_network(host)


async def test_host_that_is_no_address_is_not_sent(keys: Keys) -> None:
    assert address_metadata("/run/socket", keys.service(GATEWAY)) == ()
    assert await read_address(keys) is None


async def test_address_from_another_caller_is_ignored(keys: Keys) -> None:
    tokens = [keys.service("card"), keys.user("gateway", Role.ADMIN), keys.service(GATEWAY) + "x", ""]
    for token in tokens:
        assert await read_address(keys, *address_metadata("203.0.113.7", token)) is None
    assert await read_address(keys, ("x-client-address", "203.0.113.7")) is None


async def test_text_that_is_no_address_is_ignored(keys: Keys) -> None:
    gateway_token = ("x-client-address-token", keys.service(GATEWAY))
    assert await read_address(keys, ("x-client-address", "anything"), gateway_token) is None
