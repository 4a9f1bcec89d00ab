"""Run a gateway as a separate process, whose log lines are collected, or inside the test process."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.__main__ import serve
from gateway.settings import Settings
from stack import probes
from stack.ports import HOST, free_ports
from stack.process import Child, Process, module
from tests.conftest import AUDIENCE, USERS, Keys
from tests.openapi import REST
from tests.waiting import until


@dataclass(frozen=True)
class Gateway:
    """Running gateway process.

    Attributes:
        url: base URL.
        token: access token of alice.
        http: client with alice's token; it checks every response against the OpenAPI contract.
        log_lines: lines that the process has written so far.
    """

    url: str
    token: str
    http: httpx.AsyncClient
    log_lines: list[str]


def write_service_key(keys: Keys, folder: Path) -> Path:
    """Write the private key of the gateway's own tokens to a file, and return it."""
    file = folder / "gateway.pem"
    file.write_bytes(keys.private("gateway").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file


@asynccontextmanager
async def run_gateway_process(
    keys: Keys,
    folder: Path,
    *,
    bank: str,
    card: str,
    identity: str = "",
    log_format: str = "json",
) -> AsyncIterator[Gateway]:
    """Run a gateway process over these gRPC targets. Analytics is unreachable; without a target, identity is, too."""
    jwks = folder / "users.json"
    jwks.write_text(keys.jwks(USERS))
    port, admin_port, unused = free_ports(3)
    url, token, log_lines = f"http://{HOST}:{port}", keys.user("alice"), []
    command = module(
        "gateway",
        AUTH_ISSUER=USERS,
        AUTH_AUDIENCE=AUDIENCE,
        AUTH_JWKS=str(jwks),
        AUTH_SERVICES=json.dumps({}),
        SERVICE_KEY_FILE=str(write_service_key(keys, folder)),
        BANK_GRPC_TARGET=bank,
        CARD_GRPC_TARGET=card,
        ANALYTICS_GRPC_TARGET=f"{HOST}:{unused}",
        IDENTITY_GRPC_TARGET=identity or f"{HOST}:{unused}",
        GATEWAY_LISTEN=f"{HOST}:{port}",
        GATEWAY_ADMIN_LISTEN=f"{HOST}:{admin_port}",
        CALL_TIMEOUT_SECONDS="2",
        GATEWAY_RATE_LOGIN="6000/minute",
        LOG_FORMAT=log_format,
        LOG_LEVEL="DEBUG",  # debug logs must not contain secrets either
    )
    process = Process(name="gateway", command=command, ready=probes.http(f"{url}/health/ready"))
    async with (
        Child(process, output=lambda _, line: log_lines.append(line)),
        httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            event_hooks={"response": [REST.check_hook]},
            timeout=15,
            trust_env=False,
        ) as http,
    ):
        yield Gateway(url, token, http, log_lines)


@asynccontextmanager
async def run_gateway(keys: Keys, folder: Path, target: str, **settings: Any) -> AsyncIterator[str]:
    """Run a gateway in this process, over one gRPC target for all services, and yield the gateway's URL.

    Args:
        keys: issuers' keys.
        folder: folder for the issuer's key file.
        target: gRPC target of all services.
        settings: settings of the gateway. `stop` is an event with which a test stops the gateway within the block.
    """
    jwks = folder / "users.json"
    jwks.write_text(keys.jwks(USERS))
    port, admin_port = free_ports(2)
    stop = settings.pop("stop", asyncio.Event())
    defaults: dict[str, Any] = {
        "auth_issuer": USERS,
        "auth_audience": AUDIENCE,
        "auth_jwks": jwks,
        "bank_grpc_target": target,
        "card_grpc_target": target,
        "analytics_grpc_target": target,
        "identity_grpc_target": target,
        "gateway_listen": f"{HOST}:{port}",
        "gateway_admin_listen": f"{HOST}:{admin_port}",
        "gateway_timeout_seconds": 30,
        "call_timeout_seconds": 30,
    }
    gateway = asyncio.create_task(serve(Settings(**(defaults | settings)), stop))
    try:
        await until(probes.tcp(HOST, port))
        yield f"http://{HOST}:{port}"
    finally:
        stop.set()
        await gateway
