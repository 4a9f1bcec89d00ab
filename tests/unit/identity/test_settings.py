import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from provisioning.keys import ensure_key_pair, ensure_signing_keys
from subgraphs.identity.service.__main__ import Settings

NEEDED = {
    "auth_issuer": "https://users.test",
    "auth_jwks": "users.jwks.json",
    "identity_database_url": "postgresql://identity",
    "identity_keys": "keys",
    "identity_refresh_secret": "known to nobody else, and long enough",
}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing were in the environment, which other tests start processes with."""
    for name in [name for name in os.environ if name.startswith("IDENTITY_")]:
        monkeypatch.delenv(name)


def settings(**given: Any) -> Settings:
    return Settings(**(NEEDED | given))


class TestSettings:
    def test_have_defaults_that_fit_together(self) -> None:
        ours = settings()
        assert ours.identity_refresh_grace_seconds < ours.identity_access_seconds < ours.identity_refresh_seconds
        assert ours.identity_lock_first_seconds < ours.identity_lock_longest_seconds == 900

    def test_do_not_show_what_is_secret(self) -> None:
        assert NEEDED["identity_refresh_secret"] not in repr(settings())

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("identity_refresh_secret", "too short"),
            ("identity_hash_memory_kib", "8"),
            ("identity_hash_threads", "0"),
            ("identity_attempts", "0"),
            ("identity_lock_longest_seconds", "86401"),  # longer than attempts are remembered
            ("identity_grpc_listen", "nowhere"),
        ],
    )
    def test_that_cannot_be_are_refused_and_not_shown(self, name: str, value: object) -> None:
        with pytest.raises(ValidationError) as caught:
            settings(**{name: value})
        assert name in str(caught.value)
        assert str(value) not in str(caught.value) or value in {"0", "8"}

    def test_whose_keys_the_development_stack_has_made_are_refused_in_production(self, tmp_path: Path) -> None:
        folder = ensure_signing_keys(tmp_path / "identity", ensure_key_pair(tmp_path, "development"))
        assert settings(identity_keys=folder)
        with pytest.raises(ValidationError, match="IDENTITY_KEYS has a key of the development stack"):
            settings(production=True, identity_keys=folder)

    @pytest.mark.parametrize(
        ("name", "value", "says"),
        [
            ("identity_hash_memory_kib", 8_192, "make hashes too weak: use at least 19456 KiB and 2 passes"),
            ("identity_hash_passes", 1, "make hashes too weak"),
            ("identity_access_seconds", 43_200, "cannot be taken back: use an hour at most"),
        ],
    )
    def test_that_are_only_fit_for_development_are_refused_in_production(
        self, name: str, value: object, says: str
    ) -> None:
        assert settings(production=True).production
        with pytest.raises(ValidationError, match=says):
            settings(production=True, **{name: value})
