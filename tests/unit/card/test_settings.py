from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from subgraphs.card.service.__main__ import LimitSetting, Settings

NEEDED = {
    "auth_issuer": "https://users.test",
    "auth_jwks": "users.jwks.json",
    "card_database_url": "postgresql://card",
    "service_key_file": "card.pem",
    "acquirer_url": "http://127.0.0.1:8090",
    "acquirer_api_key": "known to us and the acquirer",
    "acquirer_webhook_secret": "whsec_c2VjcmV0",
    "card_fingerprint_secret": "known to nobody else, and long enough",
}


def settings(**given: Any) -> Settings:
    return Settings(**(NEEDED | given))


class TestSettings:
    def test_have_defaults_that_fit_together(self) -> None:
        ours = settings()
        assert ours.card_limits == {"RUB": LimitSetting(top_up=Decimal(100_000), day=Decimal(300_000))}
        assert ours.card_webhook_listen == "127.0.0.1:8091"
        assert ours.acquirer_timeout_seconds < ours.card_authorization_window_seconds
        assert ours.card_answer_seconds < 5.0  # the gateway's own time-out

    def test_do_not_show_what_is_secret(self) -> None:
        secrets = [NEEDED[name] for name in NEEDED if name.endswith(("_secret", "_api_key"))]
        assert len(secrets) == 3
        shown = repr(settings())
        assert not [secret for secret in secrets if secret in shown]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("card_fingerprint_secret", "too short"),
            ("acquirer_webhook_secret", "whsec_="),
            ("acquirer_webhook_secret", "whsec_A"),
            ("card_limits", {"RUB": {"top_up": "-7", "day": "1"}}),
            ("card_lease_seconds", "0"),
            ("card_webhook_listen", "nowhere"),
        ],
    )
    def test_that_cannot_be_are_refused_and_not_shown(self, name: str, value: object) -> None:
        with pytest.raises(ValidationError) as caught:
            settings(**{name: value})
        assert name in str(caught.value)
        assert str(value) not in str(caught.value) or value == "0"

    @pytest.mark.parametrize(
        ("name", "value", "says"),
        [
            ("acquirer_api_key", "sandbox_1", "ACQUIRER_API_KEY is one of a sandbox"),
            ("acquirer_url", "http://acquirer.example", "ACQUIRER_URL would send cards in the clear"),
        ],
    )
    def test_that_are_only_fit_for_development_are_refused_in_production(
        self, name: str, value: str, says: str
    ) -> None:
        fit = {"production": True, "acquirer_url": "https://acquirer.example"}
        assert settings(**fit).production
        with pytest.raises(ValidationError, match=says) as caught:
            settings(**(fit | {name: value}))
        assert "sandbox_1" not in str(caught.value)
