"""Validation of the identity service's settings."""

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from provisioning.keys import ensure_key_pair, ensure_signing_keys
from subgraphs.identity.service.application.service import TokenPolicy
from subgraphs.identity.service.domain.lockout import LockoutPolicy
from subgraphs.identity.service.settings import Settings

NEEDED = {
    "auth_issuer": "https://users.test",
    "auth_jwks": "users.jwks.json",
    "identity_database_url": "postgresql://host/identity",
    "identity_keys": "keys",
    "identity_refresh_secret": "a refresh secret for tests, long enough",
}


@pytest.fixture(autouse=True)
def _without_identity_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the environment variables that other tests start processes with."""
    for name in [name for name in os.environ if name.startswith("IDENTITY_")]:
        monkeypatch.delenv(name)


def settings(**changes: Any) -> Settings:
    return Settings(**(NEEDED | changes))


def test_default_lifetimes_are_consistent() -> None:
    defaults = settings()
    policy, lockout = TokenPolicy("issuer", "audience", defaults.identity_refresh_secret), LockoutPolicy()
    assert policy.grace_seconds < defaults.identity_access_seconds < policy.session_seconds
    assert lockout.first_seconds < lockout.longest_seconds == 900


def test_repr_contains_no_secret() -> None:
    assert NEEDED["identity_refresh_secret"] not in repr(settings())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("identity_refresh_secret", "too short"),
        ("identity_hash_memory_kib", "8"),
        ("identity_grpc_listen", "nowhere"),
    ],
)
def test_invalid_setting_is_refused_without_its_value(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**{name: value})
    assert name in str(caught.value)
    assert str(value) not in str(caught.value) or value in {"0", "8"}


def test_development_keys_are_refused_in_production(tmp_path: Path) -> None:
    folder = ensure_signing_keys(tmp_path / "identity", ensure_key_pair(tmp_path, "development"))
    assert settings(identity_keys=folder)
    with pytest.raises(ValidationError, match="IDENTITY_KEYS has a key of the development stack"):
        settings(production=True, identity_keys=folder)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("identity_hash_memory_kib", 8_192, "make hashes too weak: use at least 19456 KiB and 2 passes"),
        ("identity_hash_passes", 1, "make hashes too weak"),
        ("identity_access_seconds", 43_200, "cannot be revoked: use an hour at most"),
    ],
)
def test_development_setting_is_refused_in_production(name: str, value: object, message: str) -> None:
    assert settings(production=True).production
    with pytest.raises(ValidationError, match=message):
        settings(production=True, **{name: value})
