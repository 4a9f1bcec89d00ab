"""Settings of the bank. Each field is the environment variable of its name."""

from pydantic import Field, PositiveInt, SecretStr

from kit.runtime.settings import Address, AuthSettings, LogSettings, TLSSettings, TracingSettings


class Settings(AuthSettings, TLSSettings, LogSettings, TracingSettings):
    """Settings of the bank."""

    bank_database_url: SecretStr = Field(description="postgresql://…")
    bank_database_read_url: SecretStr | None = Field(
        None, description="postgresql://… of a read replica, for immutable rows; it may lag or be down"
    )
    bank_database_connections: PositiveInt = Field(
        20, description="maximum connections of one process to each of the two databases"
    )
    bank_grpc_listen: Address = Field("127.0.0.1:50051", description="gRPC")
    bank_admin_listen: Address = Field("127.0.0.1:9101", description="health, metrics and the integrity check")
    kafka_bootstrap_servers: str = Field(description="host:port, or several separated by commas")
