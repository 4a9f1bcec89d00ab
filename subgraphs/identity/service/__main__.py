"""The identity service's process: `python -m subgraphs.identity.service`."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr

from kit.auth.principal import TokenVerifier
from kit.rpc.server import Service
from kit.rpc.tls import TLS
from kit.runtime import process
from kit.runtime.service import run_service, service_ports
from kit.runtime.settings import Address, AuthSettings, LogSettings, TLSSettings, TracingSettings, is_development_key
from kit.telemetry import metrics
from subgraphs.identity.service.adapters.keys import Keys
from subgraphs.identity.service.adapters.passwords import Hardness, Passwords
from subgraphs.identity.service.adapters.repository import Repository, open_database
from subgraphs.identity.service.api.admin import keys_router
from subgraphs.identity.service.api.policy import POLICY
from subgraphs.identity.service.api.servicer import SERVICE, IdentityServicer
from subgraphs.identity.service.application.service import Identity, Terms
from subgraphs.identity.service.domain.model import LockOut

_HARDNESS: Final = Hardness()
_LOCK_OUT: Final = LockOut()
_OWASP: Final = Hardness(memory_kib=19 * 1024, passes=2)
"""The least that OWASP's Password Storage Cheat Sheet recommends of Argon2id."""
_HOUR_SECONDS: Final = 3_600.0


class Settings(AuthSettings, TLSSettings, LogSettings, TracingSettings):
    """What the identity service needs to know; each field is the environment variable of its name. `auth_issuer` and
    `auth_audience` are what it signs with, too.
    """

    identity_grpc_listen: Address = Field("127.0.0.1:50054", description="gRPC")
    identity_admin_listen: Address = Field("127.0.0.1:9104", description="health and metrics")
    identity_database_url: SecretStr = Field(description="postgresql://…")
    identity_database_connections: PositiveInt = Field(10, description="at most, of this process")
    identity_keys: Path = Field(description="the folder of the private keys that access tokens are signed with (PEM)")
    identity_access_seconds: PositiveFloat = Field(600.0, description="how long an access token lives")
    identity_refresh_secret: SecretStr = Field(
        min_length=32, description="seals refresh tokens; changing it signs everybody out"
    )
    identity_refresh_seconds: PositiveFloat = Field(30 * 86_400.0, description="how long a sign-in lasts")
    identity_refresh_grace_seconds: PositiveFloat = Field(
        10.0, description="for how long a refresh token that was used answers the same again"
    )

    identity_hash_memory_kib: int = Field(_HARDNESS.memory_kib, ge=8 * _HARDNESS.lanes, description="of one hash")
    identity_hash_passes: PositiveInt = Field(_HARDNESS.passes, description="over that memory")
    identity_hash_threads: PositiveInt = Field(2, description="passwords hashed at once, each with that memory")
    identity_hash_waiting: int = Field(32, ge=0, description="passwords that may wait to be hashed")

    identity_attempts: PositiveInt = Field(_LOCK_OUT.free, description="wrong ones in a row that lock a name")
    identity_lock_first_seconds: PositiveFloat = Field(
        _LOCK_OUT.first_seconds, description="how long, doubled by each one after"
    )
    identity_lock_longest_seconds: float = Field(_LOCK_OUT.longest_seconds, gt=0, le=86_400, description="at most")

    def production_errors(self) -> Iterator[str]:  # noqa: D102  as the base says
        yield from super().production_errors()
        if self.identity_hash_memory_kib < _OWASP.memory_kib or self.identity_hash_passes < _OWASP.passes:
            least = f"{_OWASP.memory_kib} KiB and {_OWASP.passes} passes"
            yield f"IDENTITY_HASH_MEMORY_KIB and IDENTITY_HASH_PASSES make hashes too weak: use at least {least}"
        if any(map(is_development_key, self.identity_keys.glob("*.pem"))):
            yield "IDENTITY_KEYS has a key of the development stack: remove it, and make one of its own"
        if self.identity_access_seconds > _HOUR_SECONDS:
            yield "IDENTITY_ACCESS_SECONDS is too long for tokens that cannot be taken back: use an hour at most"


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set. The database may come, go and come back meanwhile."""
    tls = TLS.from_settings(settings)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            open_database(
                settings.identity_database_url.get_secret_value(),
                max_connections=settings.identity_database_connections,
            )
        )
        metrics.register_pool(database.connections_in_use, settings.identity_database_connections)
        repository = Repository(database)
        keys = Keys.read(settings.identity_keys)
        await stack.enter_async_context(process.background_task(keys.follow(settings.identity_keys), "keys"))
        passwords = stack.enter_context(
            Passwords(
                Hardness(settings.identity_hash_memory_kib, settings.identity_hash_passes),
                threads=settings.identity_hash_threads,
                waiting=settings.identity_hash_waiting,
            )
        )
        terms = Terms(
            settings.auth_issuer,
            settings.auth_audience,
            settings.identity_refresh_secret,
            settings.identity_access_seconds,
            settings.identity_refresh_seconds,
            settings.identity_refresh_grace_seconds,
        )
        lock_out = LockOut(
            settings.identity_attempts, settings.identity_lock_first_seconds, settings.identity_lock_longest_seconds
        )
        identity = Identity(repository, passwords, keys, terms, lock_out)
        tidying = process.run_with_restarts(
            identity.tidy, name="tidy", first_delay_seconds=1.0, longest_delay_seconds=60.0
        )
        await stack.enter_async_context(process.background_task(tidying, "tidy"))
        checks = {"database": repository.ping}
        servicer = IdentityServicer(identity)
        verifier = await stack.enter_async_context(TokenVerifier.open(settings))
        await stack.enter_async_context(
            service_ports(
                grpc_listen=settings.identity_grpc_listen,
                admin_listen=settings.identity_admin_listen,
                services={SERVICE: Service(servicer.register, POLICY)},
                verifier=verifier,
                tls=tls,
                checks=checks,
                public_routers=[keys_router(keys)],
            )
        )
        await stop.wait()


if __name__ == "__main__":
    run_service("identity", Settings, serve)
