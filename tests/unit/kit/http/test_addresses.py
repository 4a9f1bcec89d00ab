"""Keys of client addresses."""

import pytest

from kit.http.addresses import address_key


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("a socket", "a socket"),
    ],
)
def test_address_key_is_the_ipv4_address_or_the_ipv6_network(host: str, key: str) -> None:
    assert address_key((host, 4711)) == key


def test_missing_address_has_an_empty_key() -> None:
    assert address_key(None) == ""
