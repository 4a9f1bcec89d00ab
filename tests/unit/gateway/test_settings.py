"""Settings of the gateway: limits of connections, and a deprecated name."""

import re
import resource
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.settings import Settings


def settings(**more: Any) -> Settings:
    return Settings(auth_issuer="issuer", auth_jwks="https://issuer.example/jwks", **more)


@pytest.fixture(autouse=True)
def _thousand_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1_024))


def test_more_connections_than_open_files_are_refused() -> None:
    with pytest.raises(ValidationError, match="raise `ulimit -Hn`, or lower this"):
        settings(gateway_connections=769)
    assert settings(gateway_connections=768).connection_limits().total == 768


def test_maximum_of_connections_depends_on_open_files_without_a_setting() -> None:
    assert settings().connection_limits().total == 768


def test_trusted_proxies_have_no_limit_by_address() -> None:
    limits = settings(gateway_trusted_proxies=["10.0.0.0/8"], gateway_connections_per_address=7).connection_limits()
    assert (limits.per_address, limits.exempt) == (7, ["10.0.0.0/8"])


def test_login_rate_can_be_set_by_its_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_RATE_SIGN_IN", "7/minute")
    assert settings().rate_limit_options().login == "7/minute"
    assert ("GATEWAY_RATE_SIGN_IN", "GATEWAY_RATE_LOGIN") in Settings.deprecated_names_in_use()
    monkeypatch.setenv("GATEWAY_RATE_LOGIN", "8/minute")
    assert settings().rate_limit_options().login == "8/minute"


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("memory", "must be memory:// or a URL such as redis://"),
        ("memory://x", "must be memory:// or a URL such as redis://"),
        ("memcached://s3cret@host", "must be memory:// or a URL such as redis://"),
        ("unix:///run/redis.sock", "must be memory:// or a URL such as redis://"),
        ("redis://:s3cret@host:port/0", "must have a port from 1 to 65535"),
        ("redis://:s3cret@host/0?foo=1", "has the parameter foo, which is not one of ssl_ca_certs"),
    ],
)
def test_invalid_rate_store_is_refused_and_not_quoted(store: str, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)) as caught:
        settings(gateway_rate_store=store)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("store", ["memory://", "redis://:secret@host:6379/0", "rediss://host"])
def test_rate_store_is_memory_or_a_redis(store: str) -> None:
    assert settings(gateway_rate_store=store).rate_limit_options().store == store
