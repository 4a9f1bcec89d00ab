"""Settings come from the environment, one class a process, every field with its meaning."""

import os
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, HttpUrl, PositiveFloat, PositiveInt, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict


def _host_and_port(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ValueError("is host:port, such as 127.0.0.1:8000")
    return value


def is_loopback(host: str) -> bool:
    """Whether it is this machine's own, by its address or by its name."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Address = Annotated[str, AfterValidator(_host_and_port)]
"""`host:port`."""


Algorithm = Literal["EdDSA", "ES256", "RS256"]
"""What tokens are signed with: ours by the first; the others are for issuers elsewhere."""


DEVELOPMENT: Final = "wallet-development-key"
"""What the keys of the embedded stack say of themselves."""


def is_of_development(file: Path) -> bool:
    """Whether a file of keys is one that the embedded stack has made for itself. One that cannot be read is not."""
    try:
        return DEVELOPMENT in file.read_text()
    except (OSError, UnicodeDecodeError):
        return False


class Settings(BaseSettings):
    """What every process' settings are made of.

    Each field is the environment variable of its name, or a file of its name in the folder that SECRETS_DIR names, as
    Docker and Kubernetes hand secrets over. The environment comes first.
    """

    model_config = SettingsConfigDict(hide_input_in_errors=True)

    production: bool = Field(False, description="refuses whatever is only fit for development")

    @classmethod
    def settings_customise_sources(  # noqa: D102  pydantic's
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  which knows no variable
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        folder = os.environ.get("SECRETS_DIR")
        if not folder:
            return init_settings, env_settings
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, folder)

    @classmethod
    def load(cls) -> Self:
        """The process' settings; ends the process where they are wrong, and says what to set. Never repeats a value."""
        try:
            return cls()
        except ValidationError as error:
            lines = [f"  {_where(each['loc'])}{each['msg'].removeprefix('Value error, ')}" for each in error.errors()]
            sys.stderr.write("\n".join(("the settings are wrong:", *lines, "")))
            raise SystemExit(2) from None

    def production_errors(self) -> Iterator[str]:
        """What of these is only fit for development, and what to do about it."""
        yield from ()

    @model_validator(mode="after")
    def _check_production(self) -> Self:
        errors = list(self.production_errors()) if self.production else []
        if errors:
            raise ValueError("this is not fit for production: " + "; ".join(errors))
        return self


def _where(location: tuple[int | str, ...]) -> str:
    return f"{'.'.join(map(str, location)).upper()}: " if location else ""


class AuthSettings(Settings):
    """Whose tokens are believed."""

    auth_issuer: str = Field(description="the `iss` of users' tokens")
    auth_jwks: HttpUrl | Path = Field(
        union_mode="left_to_right",
        description="the users' issuer's public keys (JWKS): a file, read again when it changes, or an address",
    )
    auth_algorithm: Algorithm = Field(
        "EdDSA", description="what the users' issuer signs with; tokens of any other algorithm are refused"
    )
    auth_roles_claim: str = Field(
        "roles", description="the claim of users' tokens with their roles, or a path to it: realm_access.roles"
    )
    auth_audience: str = Field("wallet", description="the `aud` that every token must name")
    auth_services: dict[str, Path] = Field(
        default_factory=dict,
        description="JSON object: the name of a service that may call, and the file with its public keys (JWKS)",
    )

    def production_errors(self) -> Iterator[str]:  # noqa: D102  as the base says
        yield from super().production_errors()
        if isinstance(self.auth_jwks, Path) and is_of_development(self.auth_jwks):
            yield "AUTH_JWKS has the development stack's keys, by which anybody may have signed: name your issuer's"
        for name, file in self.auth_services.items():
            if is_of_development(file):
                yield f"AUTH_SERVICES has a key of the development stack for {name}: make one of its own"


class ServiceSettings(AuthSettings):
    """Who a process is that calls other services in its own name."""

    service_key_file: Path = Field(description="the private key that this service signs its own tokens with (PEM)")

    def production_errors(self) -> Iterator[str]:  # noqa: D102  as the base says
        yield from super().production_errors()
        if is_of_development(self.service_key_file):
            yield "SERVICE_KEY_FILE is a key of the development stack: make one of its own"


class CallSettings(Settings):
    """What a process bears of each service that it calls."""

    call_timeout_seconds: PositiveFloat = Field(5.0, description="the longest that one call may take")
    call_limit: PositiveInt = Field(1_000, description="calls of one service at once; what is more is refused")
    call_limit_of_one: PositiveInt = Field(250, description="of these, those of one caller; what is more is refused")
    call_circuit_failures: PositiveInt = Field(
        5, description="time-outs in a row, after which a method is not called for a while"
    )
    call_circuit_seconds: PositiveFloat = Field(2.0, description="until it is tried again")


class TLSSettings(Settings):
    """What this process shows to other services, and whom it believes. Without it, they talk in plaintext, on loopback
    alone.
    """

    tls_certificate: Path | None = Field(None, description="file with the certificate of this process (PEM)")
    tls_key: Path | None = Field(None, description="file with its private key (PEM)")
    tls_authority: Path | None = Field(None, description="file with the certificates that sign those of peers (PEM)")

    @model_validator(mode="after")
    def _come_together(self) -> Self:
        given = {name: getattr(self, name) is not None for name in ("tls_certificate", "tls_key", "tls_authority")}
        if len(set(given.values())) > 1:
            missing = ", ".join(name.upper() for name, is_given in given.items() if not is_given)
            raise ValueError(f"TLS_CERTIFICATE, TLS_KEY and TLS_AUTHORITY come together, or not at all: add {missing}")
        return self


class LogSettings(Settings):
    """How a process speaks."""

    log_format: Literal["console", "json"] = Field("json", description="console for people, json for machines")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="what is logged, at least")


class TracingSettings(Settings):
    """Where a process sends its traces."""

    otlp_endpoint: HttpUrl | None = Field(
        None,
        description="the collector, by OTLP over gRPC, such as https://collector:4317; without one, there are none",
    )
    otlp_insecure: bool = Field(False, description="whether they may go in plaintext to where is not this machine")
    trace_ratio: float = Field(0.1, ge=0, le=1, description="how many of the traces that begin here are sampled")

    @model_validator(mode="after")
    def _go_by_tls(self) -> Self:
        endpoint = self.otlp_endpoint
        if endpoint is None or endpoint.scheme == "https" or self.otlp_insecure:
            return self
        if not is_loopback((endpoint.host or "").strip("[]")):
            raise ValueError("OTLP_ENDPOINT would send traces in plaintext: use https://, or say OTLP_INSECURE=true")
        return self
