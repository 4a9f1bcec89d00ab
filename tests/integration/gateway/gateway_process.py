"""The gateway as a process of its own, and what it says; or in the process of the tests."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

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
    """A gateway that runs. `http` is alice's and holds every answer against the contract; `said` is all that the
    process has written so far.
    """

    url: str
    token: str
    http: httpx.AsyncClient
    said: list[str]


@asynccontextmanager
async def running(
    keys: Keys,
    folder: Path,
    *,
    bank: str,
    card: str,
    identity: str = "",
    log_format: str = "json",
) -> AsyncIterator[Gateway]:
    """The gateway over these targets; nothing serves analytics, and identity only where it is given."""
    jwks = folder / "users.json"
    jwks.write_text(keys.jwks(USERS))
    port, admin_port, nobody = free_ports(3)
    url, token, said = f"http://{HOST}:{port}", keys.user("alice"), []
    command = module(
        "gateway",
        AUTH_ISSUER=USERS,
        AUTH_AUDIENCE=AUDIENCE,
        AUTH_JWKS=str(jwks),
        AUTH_SERVICES=json.dumps({}),
        BANK_GRPC_TARGET=bank,
        CARD_GRPC_TARGET=card,
        ANALYTICS_GRPC_TARGET=f"{HOST}:{nobody}",
        IDENTITY_GRPC_TARGET=identity or f"{HOST}:{nobody}",
        GATEWAY_LISTEN=f"{HOST}:{port}",
        GATEWAY_ADMIN_LISTEN=f"{HOST}:{admin_port}",
        CALL_TIMEOUT_SECONDS="2",
        GATEWAY_RATE_SIGN_IN="6000/minute",
        LOG_FORMAT=log_format,
        LOG_LEVEL="DEBUG",  # whoever looks for a defect is told no secret either
    )
    process = Process(name="gateway", command=command, ready=probes.http(f"{url}/health/ready"))
    async with (
        Child(process, output=lambda _, line: said.append(line)),
        httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            event_hooks={"response": [REST.check_hook]},
            timeout=15,
            trust_env=False,
        ) as http,
    ):
        yield Gateway(url, token, http, said)


@asynccontextmanager
async def serving(keys: Keys, folder: Path, target: str, **settings: Any) -> AsyncIterator[str]:
    """The gateway in this process, over one target for all services: where it answers. With a `stop` of the caller's it
    can be stopped before the end.
    """
    jwks = folder / "users.json"
    jwks.write_text(keys.jwks(USERS))
    port, admin_port = free_ports(2)
    stop = settings.pop("stop", asyncio.Event())
    given: dict[str, Any] = {
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
    gateway = asyncio.create_task(serve(Settings(**(given | settings)), stop))
    try:
        await until(probes.tcp(HOST, port))
        yield f"http://{HOST}:{port}"
    finally:
        stop.set()
        await gateway
