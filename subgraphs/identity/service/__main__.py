"""Process of the identity service: `python -m subgraphs.identity.service`."""

import asyncio
from contextlib import AsyncExitStack

from kit.auth.principal import TokenVerifier
from kit.db.postgres import check_disk, log_failures
from kit.rpc.server import Service
from kit.rpc.tls import TLS
from kit.runtime import process
from kit.runtime.service import run_service, service_ports
from kit.telemetry import metrics
from subgraphs.identity.service import settings as defaults
from subgraphs.identity.service.adapters.passwords import Argon2Parameters, Passwords
from subgraphs.identity.service.adapters.repository import Repository, open_database
from subgraphs.identity.service.adapters.signing_keys import SigningKeys
from subgraphs.identity.service.api.admin import keys_router
from subgraphs.identity.service.api.policy import POLICY
from subgraphs.identity.service.api.servicer import SERVICE, IdentityServicer
from subgraphs.identity.service.application.service import Identity, TokenPolicy
from subgraphs.identity.service.domain.lockout import LockoutPolicy
from subgraphs.identity.service.settings import Settings


async def serve(settings: Settings, stop: asyncio.Event, *, hash_waiting: int = defaults.HASH_WAITING) -> None:
    """Serve until `stop` is set. The database may be down at the start, and at any time later.

    Args:
        settings: settings of the service.
        stop: event that ends the service.
        hash_waiting: maximum number of passwords that wait for a hashing thread. Further requests are refused.
    """
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
        keys = SigningKeys.from_folder(settings.identity_keys)
        await stack.enter_async_context(process.background_task(keys.refresh_forever(settings.identity_keys), "keys"))
        passwords = stack.enter_context(
            Passwords(
                Argon2Parameters(settings.identity_hash_memory_kib, settings.identity_hash_passes),
                threads=defaults.HASH_THREADS,
                waiting=hash_waiting,
            )
        )
        policy = TokenPolicy(
            settings.auth_issuer,
            settings.auth_audience,
            settings.identity_refresh_secret,
            settings.identity_access_seconds,
        )
        identity = Identity(repository, passwords, keys, policy, LockoutPolicy())
        pruning = process.run_with_restarts(
            identity.prune_forever, name="prune", first_delay_seconds=1.0, longest_delay_seconds=60.0
        )
        await stack.enter_async_context(process.background_task(pruning, "prune"))
        verifier = await stack.enter_async_context(TokenVerifier.open(settings))
        servicer = IdentityServicer(identity)
        await stack.enter_async_context(
            service_ports(
                grpc_listen=settings.identity_grpc_listen,
                admin_listen=settings.identity_admin_listen,
                services={SERVICE: Service(servicer.register, POLICY)},
                verifier=verifier,
                tls=tls,
                checks={"database": log_failures(repository.ping), "disk": check_disk},
                public_routers=[keys_router(keys)],
            )
        )
        await stop.wait()


if __name__ == "__main__":
    run_service("identity", Settings, serve)
