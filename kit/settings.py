"""Settings come from the environment, one class a process, every field with its meaning."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, HttpUrl, model_validator
from pydantic_settings import BaseSettings


def _host_and_port(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ValueError("is host:port, such as 127.0.0.1:8000")
    return value


Address = Annotated[str, AfterValidator(_host_and_port)]
"""`host:port`."""


Algorithm = Literal["EdDSA", "ES256", "RS256"]
"""What tokens are signed with: ours by the first; the others are for issuers elsewhere."""


class AuthSettings(BaseSettings):
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


class TLSSettings(BaseSettings):
    """What this process shows to other services, and whom it believes. Without it, they talk in plaintext, on loopback
    alone.
    """

    tls_certificate: Path | None = Field(None, description="file with the certificate of this process (PEM)")
    tls_key: Path | None = Field(None, description="file with its private key (PEM)")
    tls_authority: Path | None = Field(None, description="file with the certificates that sign those of peers (PEM)")

    @model_validator(mode="after")
    def _come_together(self) -> Self:
        given = {name: getattr(self, name) is not None for name in TLSSettings.model_fields}
        if len(set(given.values())) > 1:
            missing = ", ".join(name.upper() for name, is_given in given.items() if not is_given)
            raise ValueError(f"TLS_CERTIFICATE, TLS_KEY and TLS_AUTHORITY come together, or not at all: add {missing}")
        return self


class LogSettings(BaseSettings):
    """How a process speaks."""

    log_format: Literal["console", "json"] = Field("json", description="console for people, json for machines")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
