"""Environment of identity's figures: one identity service on PostgreSQL."""

import asyncio
from collections.abc import Mapping, Sequence

from benchmarks.environment import ISSUER, BenchEnvironment
from kit.db.migrations import upgrade
from kit.rpc import request_context
from kit.rpc.channel import ClientLimits
from kit.rpc.request_context import RequestContext
from provisioning.keys import ensure_secret, ensure_signing_keys
from stack import probes
from stack.ports import HOST, free_ports
from stack.process import Child, Process, module
from subgraphs.identity.client import IdentityClient


class IdentityEnvironment(BenchEnvironment):
    """One identity service, with the password hash parameters of production.

    Attributes:
        service: process of the service.
        client: gRPC client of the service.
        admin: URL of the service's admin port.
    """

    service: Child
    client: IdentityClient
    admin: str

    async def _start(self) -> None:
        postgres = await self.start_postgres()
        url = postgres.dsn("identity")
        await asyncio.to_thread(upgrade, "subgraphs.identity.service.migrations", url)
        grpc_port, admin_port = free_ports(2)
        self.admin = f"http://{HOST}:{admin_port}"
        environment = {
            **self.auth_settings,
            "IDENTITY_DATABASE_URL": url,
            "IDENTITY_GRPC_LISTEN": f"{HOST}:{grpc_port}",
            "IDENTITY_ADMIN_LISTEN": f"{HOST}:{admin_port}",
            "IDENTITY_KEYS": str(ensure_signing_keys(self.folder / "identity", self.keys)),
            "IDENTITY_REFRESH_SECRET": ensure_secret(self.folder, "refresh"),
            "LOG_LEVEL": "ERROR",
        }
        ready = probes.http(f"{self.admin}/health/ready")
        process = Process(name="identity", command=module("subgraphs.identity.service", **environment), ready=ready)
        self.service = await self.start_process(process)
        self.client = await self._exit_stack.enter_async_context(
            IdentityClient.connect(f"{HOST}:{grpc_port}", limits=ClientLimits(timeout_seconds=30))
        )
        reset = request_context.current_request.set(RequestContext(ISSUER))
        self._exit_stack.callback(request_context.current_request.reset, reset)

    def pids(self) -> Mapping[str, Sequence[int]]:
        """Return the process id of the service."""
        return {"identity": [self.service.pid or 0]}
