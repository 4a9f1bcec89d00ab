"""Settings of the bank. Each field is the environment variable of the same name in upper case."""

from pydantic import Field, PositiveInt

from kit.runtime.settings import Address, AuthSettings, DatabaseUrl, LogSettings, TLSSettings, TracingSettings


class Settings(AuthSettings, TLSSettings, LogSettings, TracingSettings):
    """Settings of the bank."""

    bank_database_url: DatabaseUrl = Field(
        description="URL of the ledger's database, postgresql://user:password@host:5432/database"
    )
    bank_database_direct_url: DatabaseUrl | None = Field(
        None,
        description="URL of the ledger's database without a connection pooler; required if the other URLs lead to a "
        "pooler in transaction mode",
    )
    bank_database_read_url: DatabaseUrl | None = Field(
        None,
        description="URL of a read replica (PostgreSQL standby) from which the bank reads transfers; it may lag or be "
        "unavailable; unset: the bank reads them from the ledger's database",
    )
    bank_database_connections: PositiveInt = Field(
        20, description="maximum connections of one process to the ledger's database, and as many to the read replica"
    )
    bank_grpc_listen: Address = Field("127.0.0.1:50051", description="address of the gRPC API")
    bank_admin_listen: Address = Field(
        "127.0.0.1:9101", description="address of the admin interface: health, metrics and integrity check"
    )
    kafka_bootstrap_servers: str = Field(description="Kafka brokers: host:port, or several separated by commas")
