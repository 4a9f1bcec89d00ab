"""Settings from environment variables: one class per process, one documented field per variable."""

import os
import sys
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    HttpUrl,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from kit.runtime.addresses import check_target, split_address, target_addresses
from kit.runtime.certificate_files import is_authority_file, is_key_pair
from kit.runtime.invalid_settings import describe_setting_error
from kit.runtime.server_urls import parse_clickhouse_url, parse_postgres_url


def _check_address(value: str) -> str:
    split_address(value)
    return value


def is_loopback(host: str) -> bool:
    """Return whether a host, as an IP address or a name, is on this machine's loopback interface."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_loopback_target(target: str) -> bool:
    """Return whether all addresses of a listen address or gRPC target are on loopback; False if one is invalid."""
    try:
        return all(is_loopback(split_address(each)[0]) for each in target_addresses(target))
    except ValueError:
        return False


Address = Annotated[str, AfterValidator(_check_address)]
"""`host:port`, with an IPv6 address in brackets."""

GrpcTarget = Annotated[str, AfterValidator(check_target)]
"""gRPC target: `host:port`, `dns:///host:port`, or several addresses after `ipv4:` or `ipv6:`."""


def _check_database_url(value: SecretStr) -> SecretStr:
    parse_postgres_url(value.get_secret_value())
    return value


def _check_clickhouse_url(value: SecretStr) -> SecretStr:
    parse_clickhouse_url(value.get_secret_value())
    return value


DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database_url)]
"""URL of a PostgreSQL database, with the password."""

ClickHouseUrl = Annotated[SecretStr, AfterValidator(_check_clickhouse_url)]
"""URL of a ClickHouse database, with the password."""

PLAINTEXT_REFUSED: Final = (
    "is not on loopback, and plaintext is for loopback only: set TLS_CERTIFICATE, TLS_KEY and TLS_AUTHORITY "
    "(`wallet certificates` creates the files), or use 127.0.0.1"
)
"""Reason for which an address is refused without TLS; it follows the address or the name of its setting."""

_GRPC_SUFFIXES: Final = ("_grpc_listen", "_grpc_target")


Algorithm = Literal["EdDSA", "ES256", "RS256"]
"""Signature algorithm of tokens. The wallet's own tokens use EdDSA; the other algorithms are for external issuers."""


DEVELOPMENT_KEY_MARKER: Final = "wallet-development-key"
"""Marker written into development keys, so that production mode can reject them."""


def is_development_key(file: Path) -> bool:
    """Return whether a key file has the marker of development keys; False for a file that cannot be read."""
    try:
        return DEVELOPMENT_KEY_MARKER in file.read_text()
    except (OSError, UnicodeDecodeError):
        return False


class _EnvironmentSource(EnvSettingsSource):
    """Settings source of environment variables."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Return the decoded JSON. Return text that is not JSON unchanged, so that validation refuses it."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class _FilesSource(SecretsSettingsSource):
    """Settings source of files in one folder."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Decode as `_EnvironmentSource` does."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class _DeprecatedNamesSource(_EnvironmentSource):
    """Settings source that reads environment variables by their deprecated names."""

    def __init__(self, settings_cls: type[BaseSettings], names: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self.env_vars = {new: self.env_vars[old] for old, new in names.items() if old in self.env_vars}


class Settings(BaseSettings):
    """Base class of all settings.

    A field is read from the environment variable of its name. If this variable is not set, the field is read from a
    file of its name in the folder `SECRETS_DIR`, where Docker and Kubernetes mount secrets.
    """

    model_config = SettingsConfigDict(hide_input_in_errors=True)

    deprecated_names: ClassVar[Mapping[str, str]] = {}
    """Old environment names and the fields that replace them, in lower case. An old name is read for one release. If
    both names are set, the new one is used. A subclass lists its own names only.
    """

    removed_names: ClassVar[frozenset[str]] = frozenset()
    """Environment names that earlier releases read, in lower case. They have no effect; the process logs a warning."""

    created_files: ClassVar[frozenset[str]] = frozenset()
    """Fields with the path of a file that the process creates if it is missing."""

    production: bool = Field(False, description="reject settings that are only fit for development")

    @classmethod
    def settings_customise_sources(  # noqa: D102  pydantic-settings calls it
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  raises its own error for text that is not JSON
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  cannot read its folder from a variable
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        deprecated = _DeprecatedNamesSource(settings_cls, cls._all_deprecated_names())
        sources = (init_settings, _EnvironmentSource(settings_cls), deprecated)
        folder = os.environ.get("SECRETS_DIR")
        return (*sources, _FilesSource(settings_cls, folder)) if folder else sources

    @classmethod
    def load(cls) -> Self:
        """Return the settings of this process.

        Invalid settings, and settings that name a missing file, end the process with status 2. The message names the
        wrong settings and the rule of each, and never contains a value.
        """
        try:
            settings = cls()
        except ValidationError as error:
            errors = list(map(describe_setting_error, error.errors()))
        else:
            errors = list(settings._missing_files()) or list(settings._unusable_files())
            if not errors:
                return settings
        sys.stderr.write("\n".join(("the settings are wrong:", *(f"  {each}" for each in errors), "")))
        raise SystemExit(2)

    def _missing_files(self) -> Iterator[str]:
        """Yield a message for each setting with a path that this process cannot read."""
        for name, value in self:
            paths = value.values() if isinstance(value, dict) else (value,)
            if name not in self.created_files and not all(
                os.access(path, os.R_OK) for path in paths if isinstance(path, Path)
            ):
                yield f"{name.upper()}: must be the path of a file or folder that exists and that this process can read"

    def _unusable_files(self) -> Iterator[str]:
        """Yield a message for each file that this process can read but not use."""
        yield from ()

    @classmethod
    def deprecated_names_in_use(cls) -> list[tuple[str, str]]:
        """Return the deprecated environment variables that are set, each with the name that replaces it."""
        variables = {name.lower() for name in os.environ}
        names = cls._all_deprecated_names().items()
        return [(old.upper(), new.upper()) for old, new in names if old in variables]

    @classmethod
    def removed_names_in_use(cls) -> list[str]:
        """Return the environment variables that are set and have no effect any more."""
        return sorted(name for name in os.environ if name.lower() in cls.removed_names)

    @classmethod
    def _all_deprecated_names(cls) -> dict[str, str]:
        names: dict[str, str] = {}
        for base in cls.__mro__:
            names |= getattr(base, "deprecated_names", {})
        return names

    def production_errors(self) -> Iterator[str]:
        """Yield a message for each setting that is only fit for development; it says what to set instead."""
        yield from ()

    @model_validator(mode="after")
    def _check_production(self) -> Self:
        errors = list(self.production_errors()) if self.production else []
        if errors:
            raise ValueError("this is not fit for production: " + "; ".join(errors))
        return self


class AuthSettings(Settings):
    """Issuers whose tokens the process accepts."""

    auth_issuer: str = Field(description="issuer (`iss`) of users' tokens")
    auth_jwks: HttpUrl | Path = Field(
        union_mode="left_to_right",
        description="public keys (JWKS) of the users' issuer: a file, reloaded when it changes, or a URL",
    )
    auth_algorithm: Algorithm = Field(
        "EdDSA", description="signature algorithm of users' tokens; tokens with another algorithm are rejected"
    )
    auth_roles_claim: str = Field(
        "roles",
        description="claim of users' tokens that lists their roles, or a path to the claim, such as realm_access.roles",
    )
    auth_audience: str = Field("wallet", description="audience (`aud`) that every token must name")
    auth_leeway_seconds: float = Field(
        5.0,
        ge=0,
        le=300,
        description="tolerated difference between the clocks of the issuer and of this process: a token is accepted "
        "from this long before its start until this long after its expiry",
    )
    auth_services: dict[str, Path] = Field(
        default_factory=dict,
        description="JSON object that maps the name of each service that may call this process to the file with the "
        "service's public keys (JWKS)",
    )

    def production_errors(self) -> Iterator[str]:  # noqa: D102  see the base class
        yield from super().production_errors()
        if isinstance(self.auth_jwks, Path) and is_development_key(self.auth_jwks):
            yield "AUTH_JWKS has the keys of the development stack, which are not secret: use your issuer's keys"
        for name, file in self.auth_services.items():
            if is_development_key(file):
                yield f"AUTH_SERVICES has a key of the development stack for {name}: create a new key"


class ServiceSettings(AuthSettings):
    """Key of a process that calls other services in its own name, not only for a user."""

    service_key_file: Path = Field(description="private key (PEM) that signs this service's own tokens")

    def production_errors(self) -> Iterator[str]:  # noqa: D102  see the base class
        yield from super().production_errors()
        if is_development_key(self.service_key_file):
            yield "SERVICE_KEY_FILE is a key of the development stack: create a new key"


class CallSettings(Settings):
    """Time-out and limits of the gRPC calls that the process makes to other services."""

    deprecated_names: ClassVar[Mapping[str, str]] = {"call_limit_of_one": "call_max_per_caller"}

    call_timeout_seconds: PositiveFloat = Field(5.0, description="time-out of one call")
    call_limit: PositiveInt = Field(
        1_000, description="maximum concurrent calls to one service; further calls are refused"
    )
    call_max_per_caller: PositiveInt = Field(
        250, description="maximum concurrent calls to one service for one caller; further calls are refused"
    )
    call_circuit_failures: PositiveInt = Field(
        5,
        description="threshold of each method's circuit breaker: it refuses the calls of all callers after calls of "
        "this number of callers have timed out, and the calls of one caller after this number of the caller's calls "
        "has timed out; a successful call resets both counts",
    )
    call_circuit_seconds: PositiveFloat = Field(
        2.0, description="time for which an open circuit breaker refuses calls, before it allows one trial call"
    )


class TLSSettings(Settings):
    """Files for mutual TLS with other services. Without them, the process uses plaintext, and only on loopback."""

    tls_certificate: Path | None = Field(None, description="file with the certificate of this process (PEM)")
    tls_key: Path | None = Field(None, description="file with the certificate's private key (PEM)")
    tls_authority: Path | None = Field(
        None, description="file with the CA certificates that signed the other processes' certificates (PEM)"
    )

    @model_validator(mode="after")
    def _require_all_or_none(self) -> Self:
        is_set = {name: getattr(self, name) is not None for name in ("tls_certificate", "tls_key", "tls_authority")}
        if len(set(is_set.values())) > 1:
            missing = ", ".join(name.upper() for name, has_value in is_set.items() if not has_value)
            raise ValueError(
                f"TLS_CERTIFICATE, TLS_KEY and TLS_AUTHORITY must be set together, or not at all: add {missing}"
            )
        return self

    @model_validator(mode="after")
    def _refuse_plaintext_outside_of_loopback(self) -> Self:
        names = [name for name in type(self).model_fields if name.endswith(_GRPC_SUFFIXES)]
        remote = [name.upper() for name in names if not is_loopback_target(getattr(self, name))]
        if remote and self.tls_certificate is None:
            raise ValueError(f"{', '.join(remote)}: {PLAINTEXT_REFUSED}")
        return self

    def _unusable_files(self) -> Iterator[str]:
        yield from super()._unusable_files()
        if self.tls_certificate is None or self.tls_key is None or self.tls_authority is None:
            return
        if not is_key_pair(self.tls_certificate, self.tls_key):
            yield "TLS_CERTIFICATE, TLS_KEY: must be a certificate and its own private key, both PEM, not encrypted"
        if not is_authority_file(self.tls_authority):
            yield "TLS_AUTHORITY: must be a file with certificates (PEM)"


class LogSettings(Settings):
    """Format and level of logs."""

    log_format: Literal["console", "json"] = Field(
        "json", description="format of log lines: console for people, json for machines"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="minimum level that is logged")


class TracingSettings(Settings):
    """Collector and sampling of traces."""

    otlp_endpoint: HttpUrl | None = Field(
        None,
        description="URL of the collector that receives traces by OTLP over gRPC, such as https://collector:4317; "
        "unset: no traces are sent",
    )
    otlp_insecure: bool = Field(False, description="allow a plaintext connection to a collector on another machine")
    trace_ratio: float = Field(
        0.1, ge=0, le=1, description="fraction of the traces started by this process that are sampled, from 0 to 1"
    )

    @model_validator(mode="after")
    def _require_tls(self) -> Self:
        endpoint = self.otlp_endpoint
        if endpoint is None or endpoint.scheme == "https" or self.otlp_insecure:
            return self
        if not is_loopback((endpoint.host or "").strip("[]")):
            raise ValueError("OTLP_ENDPOINT would send traces in plaintext: use https://, or set OTLP_INSECURE=true")
        return self
