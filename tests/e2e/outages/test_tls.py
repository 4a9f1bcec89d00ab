"""The whole system with mutual TLS between services."""

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stack.ports import HOST, Ports
from stack.system import System
from tests.e2e.feeds import BALANCE_CHANGED, next_value, subscribe, websocket
from tests.e2e.top_ups import GOOD, final_top_up, top_up
from tests.e2e.users import User

pytestmark = pytest.mark.slow

GRPC_PORTS = [name for name, _ in Ports().items() if name.endswith("_grpc")]
"""Names of the gRPC ports of all services."""


class TestMutualTLS:
    async def test_transfer_reaches_a_subscriber_over_tls(self, alice: User, bob: User) -> None:
        async with websocket(bob) as connection:
            feed = subscribe(connection, BALANCE_CHANGED, account=bob.account)
            assert (await next_value(feed, "balanceChanged"))["balance"]["amount"] == "500.00"
            assert (await alice.transfer(bob.account, "10.00")).status_code == 201
            assert (await next_value(feed, "balanceChanged"))["balance"]["amount"] == "510.00"

    async def test_top_up_reaches_the_ledger_over_tls(self, alice: User) -> None:
        begun = await top_up(alice, GOOD)
        assert (await final_top_up(alice, begun.headers["location"]))["status"] == "COMPLETED"
        assert str(await alice.balance()) == "1100.00"

    @pytest.mark.parametrize("name", GRPC_PORTS)
    async def test_plaintext_client_is_refused(self, system: System, name: str) -> None:
        port = dict(system.ports.items())[name]
        async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await health.Check(health_pb2.HealthCheckRequest())
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
