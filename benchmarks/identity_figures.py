"""Signing in: how many a second one process hashes passwords for, and how long others wait meanwhile.

One identity service as in production, on PostgreSQL as in production; load and service share this machine.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from benchmarks.figure import BenchError, Figure, Options
from benchmarks.run import cpu_meter
from kit.db.migrations import upgrade
from kit.rpc import request_context
from kit.rpc.channel import ClientLimits
from kit.rpc.request_context import RequestContext
from loadtests.console import print_progress
from loadtests.statistics import percentiles
from provisioning.keys import ensure_key_pair, ensure_secret, ensure_signing_keys
from stack import probes
from stack.engines.postgres import temporary_postgres
from stack.ports import HOST, free_ports
from stack.process import Child, Process, module
from subgraphs.identity.client import IdentityClient
from wallet.errors import WalletError
from wallet.inputs import Secret

_LOGINS: Final = "identity.logins_per_second"
FIGURES: Final[Collection[str]] = (_LOGINS,)

_IN_FLIGHT: Final = 16
_PROBE_SECONDS: Final = 0.005
_PASSWORD: Final = Secret("correct horse battery")


@dataclass(frozen=True, slots=True)
class _Scene:
    child: Child
    client: IdentityClient
    admin: str


@asynccontextmanager
async def _scene() -> AsyncIterator[_Scene]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wallet-bench-")))
        postgres = await stack.enter_async_context(temporary_postgres())
        url = postgres.dsn("identity")
        await asyncio.to_thread(upgrade, "subgraphs.identity.service.migrations", url)
        grpc_port, admin_port = free_ports(2)
        pair, admin = ensure_key_pair(folder, "people"), f"http://{HOST}:{admin_port}"
        environment = {
            "AUTH_ISSUER": "bench",
            "AUTH_JWKS": str(pair.public),
            "IDENTITY_DATABASE_URL": url,
            "IDENTITY_GRPC_LISTEN": f"{HOST}:{grpc_port}",
            "IDENTITY_ADMIN_LISTEN": f"{HOST}:{admin_port}",
            "IDENTITY_KEYS": str(ensure_signing_keys(folder / "identity", pair)),
            "IDENTITY_REFRESH_SECRET": ensure_secret(folder, "refresh"),
            "LOG_LEVEL": "ERROR",
        }
        ready = probes.http(f"{admin}/health/ready")
        process = Process(name="identity", command=module("subgraphs.identity.service", **environment), ready=ready)
        child = await stack.enter_async_context(Child(process))
        client = await stack.enter_async_context(
            IdentityClient.connect(f"{HOST}:{grpc_port}", limits=ClientLimits(timeout_seconds=30))
        )
        reset = request_context.current_request.set(RequestContext("bench"))
        stack.callback(request_context.current_request.reset, reset)
        yield _Scene(child, client, admin)


async def logins_per_second(scene: _Scene, options: Options) -> Figure:
    """Sign-ins a second, each with its hash, by 16 users who sign in over and over. Whoever asks for the keys
    meanwhile waits for nothing but the event loop: that is told, too.
    """
    finished: list[tuple[float, float]] = []
    waited: list[float] = []
    for number in range(_IN_FLIGHT):
        await scene.client.register(f"user-{number}", _PASSWORD)
    since = time.monotonic() + options.warm_up
    until = since + options.seconds

    async def sign_in(number: int) -> None:
        while (began := time.monotonic()) < until:
            await scene.client.authenticate(f"user-{number}", _PASSWORD)
            finished.append((began, time.monotonic()))

    async def probe() -> None:
        async with httpx.AsyncClient(base_url=scene.admin, trust_env=False) as http:
            while (began := time.monotonic()) < until:
                await http.get("/.well-known/jwks.json")
                if began >= since:
                    waited.append(1_000 * (time.monotonic() - began))
                await asyncio.sleep(_PROBE_SECONDS)

    used = cpu_meter({"identity": [scene.child.pid or 0]})
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(probe())
            for number in range(_IN_FLIGHT):
                group.create_task(sign_in(number))
    except* WalletError as errors:
        raise BenchError(f"a sign-in was refused: {errors.exceptions[0]}") from None
    took = [1_000 * (end - began) for began, end in finished if since <= end <= until]
    return Figure(
        figure=_LOGINS,
        value=len(took) / options.seconds,
        unit="logins/s",
        details={
            "in_flight": _IN_FLIGHT,
            "latency_ms": percentiles(took),
            "keys_ms": {**percentiles(waited), "longest": max(waited)},
            "cpu_seconds": used(),
        },
    )


async def measure(wanted: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """Its one figure.

    Raises:
        BenchError: a sign-in was refused.
    """
    if _LOGINS in wanted:
        async with _scene() as scene:
            print_progress("one identity service; hashes as RFC 9106's second option has them")
            yield await logins_per_second(scene, options)
