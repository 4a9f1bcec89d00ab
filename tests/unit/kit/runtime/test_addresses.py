"""Addresses that processes listen on."""

import socket
from contextlib import closing

import pytest
from pydantic import TypeAdapter, ValidationError

from kit.runtime.addresses import ListenError, open_listener, split_address
from kit.runtime.settings import Address
from stack.ports import free_ports
from tests.tools import needs_ipv6


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:8000", "127.0.0.1", 8000),
        ("0.0.0.0:1", "0.0.0.0", 1),
        ("[::1]:8000", "::1", 8000),
        ("[::]:65535", "::", 65535),
        ("[2001:db8::1]:80", "2001:db8::1", 80),
        ("gateway_1.example-host:80", "gateway_1.example-host", 80),
    ],
)
def test_address_has_a_host_and_a_port(address: str, host: str, port: int) -> None:
    assert split_address(address) == (host, port)


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("", "host and a port"),
        ("8000", "host and a port"),
        (":8000", "host and a port"),
        ("localhost", "host and a port"),
        ("localhost:", "host and a port"),
        ("localhost:http", "host and a port"),
        ("localhost:٨٠٠٠", "host and a port"),
        ("http://localhost:8000", "host and a port"),
        (" localhost:8000", "host and a port"),
        ("localhost:8000\n", "host and a port"),
        ("localhost:0", "from 1 to 65535"),
        ("[::1]:65536", "from 1 to 65535"),
        ("::1:8000", "in brackets"),
        ("::1", "in brackets"),
        ("[::1]", "host and a port"),
        ("[::1]8000", "host and a port"),
        ("[:::1]:8000", "valid IPv6 address"),
        ("[127.0.0.1]:8000", "valid IPv6 address"),
    ],
)
def test_invalid_address_is_refused_with_advice(address: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        split_address(address)
    with pytest.raises(ValidationError, match=advice):
        TypeAdapter(Address).validate_python(address)


@pytest.mark.parametrize(
    ("listen", "connect"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        pytest.param("[::1]", "::1", marks=needs_ipv6),
        pytest.param("[::]", "::1", marks=needs_ipv6),
        pytest.param("[::]", "127.0.0.1", marks=needs_ipv6),
    ],
)
def test_listener_accepts_connections(listen: str, connect: str) -> None:
    (port,) = free_ports(1)
    with open_listener(f"{listen}:{port}") as listener, socket.create_connection((connect, port)):
        listener.accept()[0].close()


@pytest.mark.parametrize(
    ("address", "reason"),
    [("192.0.2.1:{port}", "assign"), ("[2001:db8::1]:{port}", "assign|family"), ("nobody.invalid:{port}", "(?i)name")],
)
def test_foreign_address_or_unknown_host_is_an_error_with_the_reason(address: str, reason: str) -> None:
    address = address.format(port=free_ports(1)[0])
    with pytest.raises(ListenError, match=reason) as error:
        open_listener(address)
    assert str(error.value).startswith(f"cannot listen on {address}: ")


def test_port_in_use_is_an_error_with_the_reason() -> None:
    (port,) = free_ports(1)
    with closing(open_listener(f"127.0.0.1:{port}")), pytest.raises(ListenError, match="in use"):
        open_listener(f"127.0.0.1:{port}")
