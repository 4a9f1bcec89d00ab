"""Identity services for tests, on a real database, with access to that database."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import jwt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kit.rpc.channel import ClientLimits
from kit.rpc.request_context import RequestContext, current_request
from stack import probes
from stack.ports import free_ports
from stack.process import Child, Output, Process, module
from subgraphs.identity.client import IdentityClient, Tokens, User
from subgraphs.identity.service.__main__ import serve
from subgraphs.identity.service.settings import Settings
from tests.conftest import AUDIENCE, SERVICES, USERS, Keys
from tests.integration.bank.harness import Caller, until_ready
from wallet.inputs import Secret

PASSWORD = Secret("correct horse battery")
WRONG = Secret("staple battery horse")


@dataclass(frozen=True)
class RunningIdentity:
    """Running identity service with a client and a pool of its database."""

    client: IdentityClient
    sql: asyncpg.Pool
    admin: str
    keys: Keys
    settings: Mapping[str, str]

    async def register_user(self, username: str | None = None, password: Secret = PASSWORD) -> User:
        """Register a user; the name is random unless given."""
        with anonymous_caller():
            return await self.client.register(username or f"u{uuid4().hex}", password)

    async def log_in(self, user: User, password: Secret = PASSWORD) -> Tokens:
        with anonymous_caller():
            return await self.client.authenticate(user.username, password)

    async def refresh(self, token: str) -> Tokens:
        with anonymous_caller():
            return await self.client.refresh(Secret(token))

    async def revoke(self, token: str) -> None:
        with anonymous_caller():
            await self.client.revoke(Secret(token))

    async def advance_time(self, seconds: float) -> None:
        """Move all stored times into the past, as if so many seconds had passed."""
        times = {
            "refresh_tokens": ("issued_at", "replaced_at"),
            "sign_ins": ("created_at", "expires_at", "revoked_at"),
            "attempts": ("locked_until",),
        }
        for table, columns in times.items():
            assignments = ", ".join(f"{column} = {column} - make_interval(secs => $1)" for column in columns)
            await self.sql.execute(f"UPDATE {table} SET {assignments}", seconds)


@contextmanager
def anonymous_caller() -> Iterator[None]:
    """Make the calls of the block without a token."""
    reset = current_request.set(RequestContext("test"))
    try:
        yield
    finally:
        current_request.reset(reset)


def caller_from_tokens(tokens: Tokens) -> Caller:
    return Caller(tokens.access)


def decode_claims(token: str) -> dict[str, Any]:
    decoded: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return decoded


def build_settings(keys: Keys, folder: Path, identity_database_url: str, **changes: Any) -> dict[str, str]:
    """Return settings of an identity service, by the lower-case names of the environment variables.

    The service signs with the tests' keys and computes cheap hashes. Its ports are free unless `changes` sets them.
    """
    files = {}
    for number, issuer in enumerate((USERS, *SERVICES)):
        file = folder / f"{number}.jwks.json"
        file.write_text(keys.jwks(issuer))
        files[issuer] = str(file)
    signing = folder / "signing"
    signing.mkdir(exist_ok=True)
    pem = keys.private(USERS).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (signing / "tests.pem").write_bytes(pem)
    grpc_port, admin_port = free_ports(2)
    settings = {
        "identity_grpc_listen": f"127.0.0.1:{grpc_port}",
        "identity_admin_listen": f"127.0.0.1:{admin_port}",
        "identity_database_url": identity_database_url,
        "identity_keys": signing,
        "identity_refresh_secret": "a refresh secret for tests, long enough",
        "identity_hash_memory_kib": 32,
        "identity_hash_passes": 1,
        "auth_issuer": USERS,
        "auth_audience": AUDIENCE,
        "auth_jwks": files[USERS],
        "auth_services": json.dumps({service: files[service] for service in SERVICES}),
        **changes,
    }
    return {name: str(value) for name, value in settings.items()}


@asynccontextmanager
async def running(
    keys: Keys, settings: Mapping[str, str], *, hash_waiting: int = 100
) -> AsyncIterator[RunningIdentity]:
    """Run an identity service in this process."""
    parsed: dict[str, Any] = {**settings, "auth_services": json.loads(settings["auth_services"])}
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(Settings(**parsed), stop, hash_waiting=hash_waiting))
    try:
        async with connect_to(keys, settings) as identity:
            await until_ready(identity.admin, serving)
            yield identity
    finally:
        stop.set()
        await serving


def process(settings: Mapping[str, str], output: Output | None = None) -> Child:
    """Return an identity service as a child process that is not started yet."""
    upper = {name.upper(): value for name, value in settings.items()}
    ready = probes.http(f"http://{settings['identity_admin_listen']}/health/ready")
    return Child(
        Process(name="identity", command=module("subgraphs.identity.service", **upper), ready=ready), output=output
    )


@asynccontextmanager
async def connect_to(keys: Keys, settings: Mapping[str, str]) -> AsyncIterator[RunningIdentity]:
    """Connect to a running identity service and to its database."""
    async with (
        asyncpg.create_pool(settings["identity_database_url"], min_size=0, max_size=4) as sql,
        IdentityClient.connect(settings["identity_grpc_listen"], limits=ClientLimits(timeout_seconds=20)) as client,
    ):
        yield RunningIdentity(client, sql, f"http://{settings['identity_admin_listen']}", keys, settings)
