from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from subgraphs.card.service.application.saga import SagaLimits
from subgraphs.card.service.application.service import ANSWER_TIMEOUT_SECONDS
from subgraphs.card.service.settings import LimitSetting, Settings

REQUIRED = {
    "auth_issuer": "https://users.test",
    "auth_jwks": "users.jwks.json",
    "card_database_url": "postgresql://host/card",
    "service_key_file": "card.pem",
    "acquirer_url": "http://127.0.0.1:8090",
    "acquirer_api_key": "API key of the merchant",
    "acquirer_webhook_secret": "whsec_c2VjcmV0",
    "card_fingerprint_secret": "fingerprint secret of the unit tests",
}


def settings(**overrides: Any) -> Settings:
    return Settings(**(REQUIRED | overrides))


class TestSettings:
    def test_defaults_are_consistent(self) -> None:
        defaults = settings()
        assert defaults.card_limits == {"RUB": LimitSetting(top_up=Decimal(100_000), day=Decimal(300_000))}
        assert defaults.card_webhook_listen == "127.0.0.1:8091"
        assert defaults.acquirer_timeout_seconds < SagaLimits().authorization_window_seconds
        assert ANSWER_TIMEOUT_SECONDS < 5.0  # the gateway's time-out for the call

    def test_repr_hides_secrets(self) -> None:
        secrets = [REQUIRED[name] for name in REQUIRED if name.endswith(("_secret", "_api_key"))]
        assert len(secrets) == 3
        text = repr(settings())
        assert not [secret for secret in secrets if secret in text]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("card_fingerprint_secret", "too short"),
            ("acquirer_webhook_secret", "whsec_="),
            ("acquirer_webhook_secret", "whsec_A"),
            ("card_limits", {"RUB": {"top_up": "-7", "day": "1"}}),
            ("card_drivers", "0"),
            ("card_webhook_listen", "nowhere"),
        ],
    )
    def test_invalid_value_is_refused_and_not_shown(self, name: str, value: object) -> None:
        with pytest.raises(ValidationError) as caught:
            settings(**{name: value})
        assert name in str(caught.value)
        assert str(value) not in str(caught.value) or value == "0"

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("acquirer_api_key", "sandbox_1", "ACQUIRER_API_KEY belongs to a sandbox"),
            ("acquirer_url", "http://acquirer.example", "ACQUIRER_URL would send card data unencrypted"),
        ],
    )
    def test_development_value_is_refused_in_production(self, name: str, value: str, message: str) -> None:
        valid = {"production": True, "acquirer_url": "https://acquirer.example"}
        assert settings(**valid).production
        with pytest.raises(ValidationError, match=message) as caught:
            settings(**(valid | {name: value}))
        assert "sandbox_1" not in str(caught.value)
