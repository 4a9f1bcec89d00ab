"""Settings of the card service."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, BaseModel, Field, IPvAnyNetwork, PositiveFloat, PositiveInt, SecretStr
from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from kit.runtime.settings import Address, CallSettings, LogSettings, ServiceSettings, TLSSettings, TracingSettings
from subgraphs.card.service.adapters.acquirer_http import RetryPolicy
from subgraphs.card.service.application.saga import SagaLimits
from subgraphs.card.service.domain.declines import DeclineLimits

SANDBOX_KEY_PREFIX: Final = "sandbox_"
"""Prefix of the API keys of a sandbox acquirer."""

_POLICY: Final = RetryPolicy()
_LIMITS: Final = SagaLimits()
_DECLINES: Final = DeclineLimits()


class LimitSetting(BaseModel):
    """Maximum amounts of one currency, in units of the currency."""

    top_up: Decimal = Field(gt=0, description="maximum of one top-up")
    day: Decimal = Field(gt=0, description="maximum of one caller's top-ups within 24 hours")


def _webhook_secret(value: SecretStr) -> SecretStr:
    try:
        Webhook(value.get_secret_value())
    except (EmptyWebhookSecretError, ValueError):
        raise ValueError("must be whsec_… with a secret in Base64") from None
    return value


class Settings(ServiceSettings, CallSettings, TLSSettings, LogSettings, TracingSettings):
    """Settings of the card service; each field is the environment variable of the same name in upper case."""

    removed_names: ClassVar[frozenset[str]] = frozenset(
        {
            "card_answer_seconds",
            "card_authorization_window_seconds",
            "card_captures",
            "card_first_pause_seconds",
            "card_interval_seconds",
            "card_lease_seconds",
            "card_longest_pause_seconds",
            "card_poll_seconds",
        }
    )

    card_grpc_listen: Address = Field("127.0.0.1:50052", description="address of the gRPC API")
    card_admin_listen: Address = Field(
        "127.0.0.1:9102", description="address of health, metrics, the integrity check and reviews"
    )
    card_webhook_listen: Address = Field("127.0.0.1:8091", description="address that receives the acquirer's webhooks")
    card_database_url: SecretStr = Field(description="URL of the card service's database, postgresql://…")
    card_database_connections: PositiveInt = Field(
        10, description="maximum connections of this process; one of them listens for changes"
    )
    bank_grpc_target: str = Field("127.0.0.1:50051", description="gRPC target of the bank")

    acquirer_url: str = Field(description="base URL of the acquirer, without a path; https:// in production")
    acquirer_api_key: SecretStr = Field(description="API key of this merchant at the acquirer")
    acquirer_webhook_secret: Annotated[SecretStr, AfterValidator(_webhook_secret)] = Field(
        description="secret of the webhooks' signatures: whsec_…"
    )
    acquirer_timeout_seconds: PositiveFloat = Field(_POLICY.timeout_seconds, description="time-out of one attempt")
    acquirer_attempts: PositiveInt = Field(
        _POLICY.attempts, description="maximum attempts of a call; all have the same idempotency key"
    )
    acquirer_budget_seconds: PositiveFloat = Field(
        _POLICY.budget_seconds,
        description="maximum time between the start of the first attempt and the start of the last one",
    )
    acquirer_circuit_failures: PositiveInt = Field(
        _POLICY.circuit_failures,
        description="number of customers with failed attempts that opens the circuit for all; as many attempts of one "
        "customer open it for that customer only",
    )
    acquirer_circuit_seconds: PositiveFloat = Field(
        _POLICY.circuit_seconds, description="time until an open circuit lets a probe through"
    )

    card_limits: dict[str, LimitSetting] = Field(
        {"RUB": LimitSetting(top_up=Decimal(100_000), day=Decimal(300_000))},
        description="limits by currency, a JSON object; top-ups in other currencies are refused",
    )
    card_fingerprint_secret: SecretStr = Field(
        min_length=32,
        description="HMAC key of the fingerprints of requests and cards; with a new key, repeats of earlier requests "
        "are refused as conflicts",
    )
    card_declines_per_customer: PositiveInt = Field(
        _DECLINES.per_customer, description="maximum declined cards of one customer within the window"
    )
    card_declines_per_card: PositiveInt = Field(
        _DECLINES.per_card, description="maximum declines of one card number within the window"
    )
    card_declines_per_address: PositiveInt = Field(
        _DECLINES.per_address, description="maximum declined cards from one client address within the window"
    )
    card_declines_per_shared_address: PositiveInt = Field(
        _DECLINES.per_shared_address,
        description="maximum declined cards from one private address, or from one address of `CARD_SHARED_NETWORKS`, "
        "within the window",
    )
    card_shared_networks: list[IPvAnyNetwork] = Field(
        [], description="JSON array of networks in which many customers share an address, such as a mobile carrier's"
    )
    card_decline_window_seconds: PositiveFloat = Field(
        _DECLINES.window_seconds, description="length of the sliding window of the `CARD_DECLINES_…` limits"
    )
    card_access_seconds: PositiveFloat = Field(
        60.0, description="interval between checks that a subscriber may still read the account"
    )
    card_drivers: PositiveInt = Field(
        _LIMITS.drivers,
        description="maximum top-ups that the completer resumes concurrently; those of current callers are not counted",
    )

    def production_errors(self) -> Iterator[str]:  # noqa: D102  documented in the base class
        yield from super().production_errors()
        if self.acquirer_api_key.get_secret_value().startswith(SANDBOX_KEY_PREFIX):
            yield "ACQUIRER_API_KEY belongs to a sandbox, which moves no money: use a key of the real acquirer"
        if not self.acquirer_url.startswith("https://"):
            yield "ACQUIRER_URL would send card data unencrypted: use https://"
