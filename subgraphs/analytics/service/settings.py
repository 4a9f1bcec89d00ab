"""Settings of analytics."""

from typing import ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from kit.runtime.settings import (
    Address,
    CallSettings,
    ClickHouseUrl,
    GrpcTarget,
    LogSettings,
    ServiceSettings,
    TLSSettings,
    TracingSettings,
)
from subgraphs.analytics.service.application.consumer import ConsumerLimits
from subgraphs.analytics.service.application.subscription_hub import HubLimits


class Settings(ServiceSettings, CallSettings, TLSSettings, LogSettings, TracingSettings):
    """Settings of analytics; each field is the environment variable of the same name in upper case."""

    removed_names: ClassVar[frozenset[str]] = frozenset(
        {
            "analytics_linger_seconds",
            "analytics_unreadable_limit",
            "analytics_repair_grace_seconds",
            "analytics_repair_seconds",
            "analytics_watch_check_seconds",
        }
    )

    analytics_grpc_listen: Address = Field("127.0.0.1:50053", description="address of the gRPC API")
    analytics_admin_listen: Address = Field(
        "127.0.0.1:9103",
        description="address of the admin interface: health, metrics, integrity check and `wallet replay`",
    )
    clickhouse_dsn: ClickHouseUrl = Field(
        description="URL of ClickHouse, http://user:password@host:8123/database, or https://… for TLS"
    )
    kafka_bootstrap_servers: str = Field(description="Kafka brokers: host:port, or several separated by commas")
    bank_grpc_target: GrpcTarget = Field("127.0.0.1:50051", description="gRPC target of the bank")
    analytics_session_seconds: PositiveFloat = Field(
        6.0, description="time without a heartbeat after which the broker removes a member from the consumer group"
    )
    analytics_batch: PositiveInt = Field(
        ConsumerLimits().batch_size,
        description="maximum number of Kafka messages that one insert into ClickHouse stores",
    )
    analytics_watch_access_seconds: PositiveFloat = Field(
        HubLimits().access_interval_seconds,
        description="interval at which the service checks whether a subscriber may still read the account",
    )
