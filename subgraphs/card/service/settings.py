"""Settings of the card service."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, BaseModel, Field, IPvAnyNetwork, PositiveFloat, PositiveInt, SecretStr
from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from kit.runtime.settings import (
    Address,
    CallSettings,
    DatabaseUrl,
    GrpcTarget,
    LogSettings,
    ServiceSettings,
    TLSSettings,
    TracingSettings,
)
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
        "127.0.0.1:9102",
        description="address of the admin interface: health, metrics, integrity check, and manual review of top-ups",
    )
    card_webhook_listen: Address = Field("127.0.0.1:8091", description="address that receives the acquirer's webhooks")
    card_database_url: DatabaseUrl = Field(
        description="URL of the card service's database, postgresql://user:password@host:5432/database"
    )
    card_database_connections: PositiveInt = Field(
        10,
        description="maximum connections of one process to the card service's database; one of them listens for "
        "changes of top-ups",
    )
    bank_grpc_target: GrpcTarget = Field("127.0.0.1:50051", description="gRPC target of the bank")

    acquirer_url: str = Field(description="base URL of the acquirer, without a path; https:// in production")
    acquirer_api_key: SecretStr = Field(description="API key of this merchant at the acquirer")
    acquirer_webhook_secret: Annotated[SecretStr, AfterValidator(_webhook_secret)] = Field(
        description="secret with which the acquirer signs webhooks: whsec_…"
    )
    acquirer_timeout_seconds: PositiveFloat = Field(
        _POLICY.timeout_seconds, description="time-out of one attempt of a call to the acquirer"
    )
    acquirer_attempts: PositiveInt = Field(
        _POLICY.attempts,
        description="maximum attempts of one call to the acquirer; all attempts have the same idempotency key",
    )
    acquirer_budget_seconds: PositiveFloat = Field(
        _POLICY.budget_seconds,
        description="maximum time between the start of the first attempt of a call to the acquirer and the start of "
        "the last one",
    )
    acquirer_circuit_failures: PositiveInt = Field(
        _POLICY.circuit_failures,
        description="threshold of the acquirer's circuit breaker: it refuses calls for all customers after attempts "
        "for this number of customers have failed, and calls for one customer after this number of attempts for the "
        "customer has failed; a successful attempt resets both counts",
    )
    acquirer_circuit_seconds: PositiveFloat = Field(
        _POLICY.circuit_seconds,
        description="time for which the acquirer's open circuit breaker refuses calls, before it allows one trial call",
    )

    card_limits: dict[str, LimitSetting] = Field(
        {"RUB": LimitSetting(top_up=Decimal(100_000), day=Decimal(300_000))},
        description="JSON object that maps a currency to its limits, the maximum of one top-up (`top_up`) and of one "
        "caller's top-ups within 24 hours (`day`); top-ups in other currencies are refused",
    )
    card_fingerprint_secret: SecretStr = Field(
        min_length=32,
        description="HMAC key of the fingerprints by which the service compares requests and cards; after a change of "
        "the key, a repeat of an earlier request is refused with IDEMPOTENCY_CONFLICT",
    )
    card_declines_per_customer: PositiveInt = Field(
        _DECLINES.per_customer,
        description="number of declines of one customer's cards within `CARD_DECLINE_WINDOW_SECONDS` after which the "
        "customer's new top-ups are refused",
    )
    card_declines_per_card: PositiveInt = Field(
        _DECLINES.per_card,
        description="number of declines of one card number within `CARD_DECLINE_WINDOW_SECONDS` after which new "
        "top-ups with this card are refused",
    )
    card_declines_per_address: PositiveInt = Field(
        _DECLINES.per_address,
        description="number of declines for clients at one public IP address within `CARD_DECLINE_WINDOW_SECONDS` "
        "after which new top-ups from this address are refused",
    )
    card_declines_per_shared_address: PositiveInt = Field(
        _DECLINES.per_shared_address,
        description="the same limit as `CARD_DECLINES_PER_ADDRESS` for addresses that many customers share: private "
        "addresses and those of `CARD_SHARED_NETWORKS`",
    )
    card_shared_networks: list[IPvAnyNetwork] = Field(
        [], description="JSON array of networks in which many customers share an address, such as a mobile carrier's"
    )
    card_decline_window_seconds: PositiveFloat = Field(
        _DECLINES.window_seconds,
        description="length of the sliding window in which the `CARD_DECLINES_…` limits count declines",
    )
    card_access_seconds: PositiveFloat = Field(
        60.0, description="interval at which the service checks whether a subscriber may still read the account"
    )
    card_drivers: PositiveInt = Field(
        _LIMITS.drivers,
        description="maximum number of unfinished top-ups that the background task (the completer) continues "
        "concurrently; top-ups whose callers still wait for the response are not counted",
    )

    def production_errors(self) -> Iterator[str]:  # noqa: D102  documented in the base class
        yield from super().production_errors()
        if self.acquirer_api_key.get_secret_value().startswith(SANDBOX_KEY_PREFIX):
            yield "ACQUIRER_API_KEY belongs to a sandbox, which moves no money: use a key of the real acquirer"
        if not self.acquirer_url.startswith("https://"):
            yield "ACQUIRER_URL would send card data unencrypted: use https://"
