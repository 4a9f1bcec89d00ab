"""Settings come from the environment, one class a process, every field with its meaning."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings


def _host_and_port(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ValueError("is host:port, such as 127.0.0.1:8000")
    return value


Address = Annotated[str, AfterValidator(_host_and_port)]
"""`host:port`."""


class AuthSettings(BaseSettings):
    """Whose tokens are believed."""

    auth_issuer: str = Field(description="the `iss` of users' tokens")
    auth_jwks: Path = Field(description="file with the users' issuer's public keys (JWKS)")
    auth_audience: str = Field("wallet", description="the `aud` that every token must name")
    auth_services: dict[str, Path] = Field(
        default_factory=dict,
        description="JSON object: the name of a service that may call, and the file with its public keys (JWKS)",
    )


class LogSettings(BaseSettings):
    """How a process speaks."""

    log_format: Literal["console", "json"] = Field("json", description="console for people, json for machines")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
