"""Client addresses that the gateway states, and statements of others."""

from typing import Any, cast

import pytest

from kit.auth.principal import Role
from kit.rpc.client_address import GATEWAY, address_metadata, client_network, stated_address
from tests.conftest import Keys


class Context:
    """Context of a call with this metadata."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


async def stated(keys: Keys, *metadata: tuple[str, str]) -> str | None:
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
def test_network_of_a_client(host: str, network: str | None) -> None:
    assert client_network(host) == network


@pytest.mark.parametrize("host", ["203.0.113.7", "2001:db8:1:2:3:4:5:6"])
async def test_address_that_the_gateway_states_is_believed(keys: Keys, host: str) -> None:
    assert await stated(keys, *address_metadata(host, keys.service(GATEWAY))) == client_network(host)


async def test_host_without_an_address_is_not_stated(keys: Keys) -> None:
    assert address_metadata("/run/socket", keys.service(GATEWAY)) == ()
    assert await stated(keys) is None


async def test_address_that_others_state_is_ignored(keys: Keys) -> None:
    tokens = [keys.service("card"), keys.user("gateway", Role.ADMIN), keys.service(GATEWAY) + "x", ""]
    for token in tokens:
        assert await stated(keys, *address_metadata("203.0.113.7", token)) is None
    assert await stated(keys, ("x-client-address", "203.0.113.7")) is None


async def test_text_that_is_no_address_is_ignored(keys: Keys) -> None:
    proof = ("x-client-address-token", keys.service(GATEWAY))
    assert await stated(keys, ("x-client-address", "anything"), proof) is None
