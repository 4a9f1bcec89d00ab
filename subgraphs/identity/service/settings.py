"""Settings of the identity service. Each field is the environment variable of the same name in upper case."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr

from kit.runtime.settings import (
    Address,
    AuthSettings,
    DatabaseUrl,
    LogSettings,
    TLSSettings,
    TracingSettings,
    is_development_key,
)
from subgraphs.identity.service.adapters.passwords import Argon2Parameters

HASH_THREADS: Final = 2
"""Maximum concurrent password hashes, each with `IDENTITY_HASH_MEMORY_KIB` of memory."""
HASH_WAITING: Final = 32
"""Maximum number of password hashes that wait for a thread."""

_DEFAULTS: Final = Argon2Parameters()
_OWASP_MINIMUM: Final = Argon2Parameters(memory_kib=19 * 1024, passes=2)
"""Minimum of OWASP's Password Storage Cheat Sheet for Argon2id."""
_HOUR_SECONDS: Final = 3_600.0


class Settings(AuthSettings, TLSSettings, LogSettings, TracingSettings):
    """Settings of the identity service. It issues tokens of `auth_issuer` for `auth_audience`."""

    removed_names: ClassVar[frozenset[str]] = frozenset(
        {
            "identity_attempts",
            "identity_lock_longest_seconds",
            "identity_refresh_seconds",
            "identity_refresh_grace_seconds",
            "identity_hash_threads",
            "identity_hash_waiting",
            "identity_lock_first_seconds",
        }
    )

    identity_grpc_listen: Address = Field("127.0.0.1:50054", description="address of the gRPC API")
    identity_admin_listen: Address = Field(
        "127.0.0.1:9104", description="address of the admin interface: health, metrics and public keys"
    )
    identity_database_url: DatabaseUrl = Field(
        description="URL of the identity service's database, postgresql://user:password@host:5432/database"
    )
    identity_database_connections: PositiveInt = Field(
        10, description="maximum connections of one process to the identity service's database"
    )
    identity_keys: Path = Field(description="folder with the private keys (PEM) that sign access tokens")
    identity_access_seconds: PositiveFloat = Field(600.0, description="lifetime of an access token")
    identity_refresh_secret: SecretStr = Field(
        min_length=32, description="HMAC key of refresh tokens; a change of the key ends all sessions"
    )

    identity_hash_memory_kib: int = Field(
        _DEFAULTS.memory_kib,
        ge=8 * _DEFAULTS.lanes,
        description="memory in KiB that one password hash (Argon2id) needs",
    )
    identity_hash_passes: PositiveInt = Field(
        _DEFAULTS.passes, description="number of passes of Argon2id over the memory of one password hash"
    )

    def production_errors(self) -> Iterator[str]:  # noqa: D102  see the base class
        yield from super().production_errors()
        if (
            self.identity_hash_memory_kib < _OWASP_MINIMUM.memory_kib
            or self.identity_hash_passes < _OWASP_MINIMUM.passes
        ):
            least = f"{_OWASP_MINIMUM.memory_kib} KiB and {_OWASP_MINIMUM.passes} passes"
            yield f"IDENTITY_HASH_MEMORY_KIB and IDENTITY_HASH_PASSES make hashes too weak: use at least {least}"
        if any(map(is_development_key, self.identity_keys.glob("*.pem"))):
            yield "IDENTITY_KEYS has a key of the development stack: remove it, and create a new key"
        if self.identity_access_seconds > _HOUR_SECONDS:
            yield "IDENTITY_ACCESS_SECONDS is too long for tokens that cannot be revoked: use an hour at most"
