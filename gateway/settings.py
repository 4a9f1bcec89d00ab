"""Settings of the gateway."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, field_validator

from gateway.graphql.execution.options import GraphOptions
from gateway.graphql.protection.limits import Limits
from gateway.http.cors import ALL, DEFAULT_HEADERS, CorsOptions, check_header, check_origin, is_localhost
from gateway.http.rate_limits import Rate, RateLimitOptions, RateStore
from kit.http.connections import ConnectionLimits, check_proxy, default_connections, max_connections
from kit.runtime.settings import (
    Address,
    AuthSettings,
    CallSettings,
    GrpcTarget,
    LogSettings,
    TLSSettings,
    TracingSettings,
    is_development_key,
)


class Settings(AuthSettings, CallSettings, TLSSettings, LogSettings, TracingSettings):
    """Settings of the gateway; each field is the environment variable of the same name in upper case."""

    deprecated_names: ClassVar[Mapping[str, str]] = {"gateway_rate_sign_in": "gateway_rate_login"}

    removed_names: ClassVar[frozenset[str]] = frozenset(
        {
            "gateway_body_limit_bytes",
            "gateway_graphql_batch_limit",
            "gateway_graphql_max_aliases",
            "gateway_graphql_max_depth",
            "gateway_graphql_max_directives",
            "gateway_graphql_max_fields",
            "gateway_graphql_max_repeats",
            "gateway_graphql_max_root_fields",
            "gateway_graphql_max_tokens",
            "gateway_websocket_init_seconds",
            "gateway_websocket_max_operations",
            "gateway_websocket_message_limit_bytes",
        }
    )

    gateway_listen: Address = Field("127.0.0.1:8000", description="address of REST and GraphQL")
    gateway_admin_listen: Address = Field("127.0.0.1:9100", description="address of health and metrics")
    service_key_file: Path | None = Field(
        None,
        description="private key (PEM) of the gateway's own tokens, with which it proves the IP addresses of clients "
        "to the card service, and sends the transfers of several callers to the bank together; unset: the number of "
        "declined cards is not limited per IP address, and each transfer is a call of its own",
    )
    gateway_forward_transfers: bool = Field(
        True, description="send the transfers of concurrent callers to the bank together; needs SERVICE_KEY_FILE"
    )
    bank_grpc_target: GrpcTarget = Field("127.0.0.1:50051", description="gRPC target of the bank")
    card_grpc_target: GrpcTarget = Field("127.0.0.1:50052", description="gRPC target of the card service")
    analytics_grpc_target: GrpcTarget = Field("127.0.0.1:50053", description="gRPC target of analytics")
    identity_grpc_target: GrpcTarget = Field("127.0.0.1:50054", description="gRPC target of the identity service")
    gateway_timeout_seconds: PositiveFloat = Field(
        10.0, description="maximum duration of a request; subscriptions and WebSockets are exempt"
    )
    gateway_graphql_max_cost: PositiveInt = Field(
        Limits.cost,
        description="maximum estimated cost of the GraphQL operations in one request; a quarter of it for callers "
        "without a token",
    )
    gateway_graphql_trusted_documents: Path | None = Field(
        None,
        description="file with a JSON object that maps SHA-256 hashes to GraphQL documents; clients of "
        "`/graphql` may execute only these documents; unset: any document",
    )
    gateway_graphql_compiled: bool = Field(
        GraphOptions.compiled,
        description="compile the GraphQL operations of cached documents; false: graphql-core executes all operations",
    )
    gateway_streams: PositiveInt = Field(
        GraphOptions.streams, description="maximum number of open WebSockets and subscriptions of one caller"
    )
    gateway_connections: PositiveInt | None = Field(
        None,
        description="maximum number of open connections; unset: as many as the limit of open files allows, at most "
        "4,000",
    )
    gateway_connections_per_address: PositiveInt = Field(
        500, description="maximum number of open connections of one address; trusted proxies are exempt"
    )
    gateway_federation: bool = Field(
        False,
        description="serve `/graphql` as a Federation 2 subgraph, and each single subgraph, for a federation router",
    )
    gateway_trusted_proxies: list[Annotated[str, AfterValidator(check_proxy)]] = Field(
        [],
        description="JSON array of trusted proxies (addresses or networks); the gateway uses only their X-Forwarded "
        "headers",
    )
    gateway_cors_origins: list[Annotated[str, AfterValidator(check_origin)]] = Field(
        [],
        description="JSON array of allowed CORS origins; `*` for all; localhost is allowed unless PRODUCTION is set",
    )
    gateway_cors_headers: list[Annotated[str, AfterValidator(check_header)]] = Field(
        list(DEFAULT_HEADERS),
        description="JSON array of the request headers that pages of the allowed origins may send",
    )
    gateway_rates: bool = Field(True, description="enable rate limiting")
    gateway_rate_store: RateStore = Field(
        RateLimitOptions.store,
        description="storage of the rate limits' counters: memory:// for this process only, or the URL of a Redis that "
        "several gateways share, redis://user:password@host:6379/0, or rediss://… for TLS",
    )
    gateway_rate_requests: Rate = Field(
        RateLimitOptions.requests,
        description="limit of requests and WebSocket messages, per caller; a page of a REST list counts as one request "
        "for each 50 items that it may have",
    )
    gateway_rate_cost: Rate = Field(
        RateLimitOptions.cost,
        description="limit per caller of the estimated cost of GraphQL operations plus the cost of parsing and "
        "validating the documents that the gateway has not cached",
    )
    gateway_rate_anonymous: Rate = Field(
        RateLimitOptions.anonymous,
        description="limit per address of requests without a valid token; the same limit applies to new WebSockets, "
        "and to requests to `/auth/refresh` and `/auth/logout`, and each of the three is counted for itself",
    )
    gateway_rate_anonymous_cost: Rate = Field(
        RateLimitOptions.anonymous_cost,
        description="like GATEWAY_RATE_COST, per address, for requests without a token",
    )
    gateway_rate_login: Rate = Field(
        RateLimitOptions.login,
        description="limit of registrations and logins, per address; and of changes of the password, per caller",
    )

    @field_validator("gateway_connections")
    @classmethod
    def _fit_into_descriptors(cls, value: int | None) -> int | None:
        if value is not None and value > max_connections():
            raise ValueError(
                f"the process may open files for {max_connections()} connections: raise `ulimit -Hn`, or lower this"
            )
        return value

    def production_errors(self) -> Iterator[str]:  # noqa: D102  see the base class
        yield from super().production_errors()
        if ALL in self.gateway_cors_origins:
            yield "GATEWAY_CORS_ORIGINS allows all origins: name yours"
        if any(map(is_localhost, self.gateway_cors_origins)):
            yield "GATEWAY_CORS_ORIGINS allows localhost: remove it"
        if self.service_key_file is not None and is_development_key(self.service_key_file):
            yield "SERVICE_KEY_FILE is a key of the development stack: create a new key"
        if not self.gateway_rates:
            yield "GATEWAY_RATES turns rate limiting off: remove it"

    def connection_limits(self) -> ConnectionLimits:
        """Return the limits of the public port's connections."""
        return ConnectionLimits(
            total=self.gateway_connections or default_connections(),
            per_address=self.gateway_connections_per_address,
            exempt=self.gateway_trusted_proxies,
        )

    def cors_options(self) -> CorsOptions:
        """Return the options of CORS. In production, pages of localhost are not allowed."""
        return CorsOptions(self.gateway_cors_origins, self.gateway_cors_headers, localhost=not self.production)

    def rate_limit_options(self) -> RateLimitOptions:
        """Return the options of the rate limiter."""
        return RateLimitOptions(
            is_on=self.gateway_rates,
            store=self.gateway_rate_store,
            requests=self.gateway_rate_requests,
            cost=self.gateway_rate_cost,
            anonymous=self.gateway_rate_anonymous,
            anonymous_cost=self.gateway_rate_anonymous_cost,
            login=self.gateway_rate_login,
        )
