"""Transfers of concurrent requests, which the gateway sends to the bank together."""

import asyncio
import io
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import grpc
import httpx
import pytest
from structlog.testing import capture_logs

from kit.auth.keys import KeySet
from kit.auth.principal import TokenVerifier
from kit.rpc.server import Service, grpc_server
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from stack.ports import HOST, free_ports
from subgraphs.bank.client import SERVICE as BANK
from subgraphs.bank.client import forwarding
from subgraphs.bank.service.api import policy as bank_policy
from tests.conftest import AUDIENCE, USERS, Keys
from tests.integration.gateway.fake_services import ACCOUNT
from tests.integration.gateway.gateway_process import run_gateway, write_service_key
from tests.integration.gateway.slow_services import SlowServices
from tests.waiting import until

TRANSFER: Final = """mutation($input: TransferMoneyInput!) {
    transferMoney(input: $input) { ... on TransferMoneySuccess { transfer { recipient { id } } } } }"""


class Transfers:
    """Transfers through a gateway over slow services.

    Attributes:
        slow: the services, which answer when `proceed` is set.
        arrived: number of transfers that have come to the gateway's client of the bank.
    """

    def __init__(self, url: str, keys: Keys, slow: SlowServices) -> None:
        self._url = url
        self._keys = keys
        self.slow = slow
        self.arrived = 0

    def start(self, count: int) -> dict[UUID, "asyncio.Task[str]"]:
        """Start the requests of different users, over REST and GraphQL in turns; return them by their recipients."""
        return {
            recipient: asyncio.create_task(self._send(f"user {n}", recipient, is_graphql=bool(n % 2)))
            for n, recipient in enumerate(uuid4() for _ in range(count))
        }

    async def occupy(self) -> dict[UUID, "asyncio.Task[str]"]:
        """Start two requests, whose transfers are sent alone; further transfers wait."""
        requests: dict[UUID, asyncio.Task[str]] = {}
        for _ in range(2):
            requests |= self.start(1)
            assert await self.started(1) == {"TransferMoney": 1}
        return requests

    async def until_arrived(self, count: int) -> None:
        """Wait until the client of the bank has this number of transfers."""

        async def have_arrived() -> bool:
            return self.arrived == count

        await until(have_arrived, every=0.01)

    async def started(self, count: int) -> Counter[str]:
        """Wait for the next calls of the bank, and count them by method."""
        async with asyncio.timeout(10):
            return Counter([(await self.slow.started.get())[0] for _ in range(count)])

    async def _send(self, user: str, recipient: UUID, *, is_graphql: bool) -> str:
        """Make a transfer, and return the recipient in the response."""
        headers = {"Authorization": f"Bearer {self._keys.user(user)}", "Idempotency-Key": uuid4().hex}
        amount = {"recipientId": str(recipient), "amount": "1.00"}
        key = {"senderId": str(ACCOUNT), "idempotencyKey": uuid4().hex}
        async with httpx.AsyncClient(base_url=self._url, headers=headers, trust_env=False, timeout=30) as http:
            if is_graphql:
                body: dict[str, Any] = {"query": TRANSFER, "variables": {"input": amount | key}}
                response = await http.post("/graphql", json=body)
                data = json.loads(response.text)["data"]["transferMoney"]
                return str(data["transfer"]["recipient"]["id"])
            response = await http.post(f"/accounts/{ACCOUNT}/transfers", json=amount)
            return str(response.raise_for_status().json()["recipientId"])


async def assert_own_responses(requests: dict[UUID, "asyncio.Task[str]"]) -> None:
    responses = await asyncio.gather(*requests.values())
    assert responses == [str(recipient) for recipient in requests]


@contextmanager
def no_tokens_in_the_log() -> Iterator[None]:
    """Assert that our own log and those of libraries have no token after the block."""
    libraries = io.StringIO()
    handler, root = logging.StreamHandler(libraries), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with capture_logs() as lines:
            yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert lines
    assert "eyJ" not in f"{lines} {libraries.getvalue()}"


@asynccontextmanager
async def run_transfers(
    keys: Keys, folder: Path, target: str, slow: SlowServices, **settings: Any
) -> AsyncIterator[Transfers]:
    """Run a gateway with its key; no call is late. At the end, assert that no line of the log has a token."""
    key_file = write_service_key(keys, folder)
    with pytest.MonkeyPatch.context() as patch, no_tokens_in_the_log():
        async with run_gateway(keys, folder, target, service_key_file=key_file, **settings) as url:
            transfers = Transfers(url, keys, slow)
            send = forwarding.TransferForwarder.send

            async def count_and_send(forwarder: Any, request: Any, attempt: Any) -> Any:
                transfers.arrived += 1
                return await send(forwarder, request, attempt)

            patch.setattr(forwarding, "_COLLECT_SECONDS", 1_800)
            patch.setattr(forwarding, "_LATE_SECONDS", 3_600)
            patch.setattr(forwarding.TransferForwarder, "send", count_and_send)
            yield transfers
            slow.proceed.set()


@pytest.fixture
async def transfers(
    slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
) -> AsyncIterator[Transfers]:
    async with run_transfers(keys, tmp_path, slow_target, slow_services) as transfers:
        yield transfers


async def test_transfers_of_concurrent_requests_are_sent_together(transfers: Transfers) -> None:
    first = await transfers.occupy()
    waiting = transfers.start(4)
    await transfers.until_arrived(6)
    transfers.slow.proceed.set()
    assert await transfers.started(1) == {"ForwardTransfers": 1}
    await assert_own_responses(first | waiting)
    assert transfers.slow.started.empty()


async def test_call_is_cancelled_when_all_its_clients_have_disconnected(
    transfers: Transfers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await transfers.occupy()
    (one, another) = transfers.start(2).values()
    await transfers.until_arrived(4)
    monkeypatch.setattr(forwarding, "_CALLS_PER_PROCESS", 3)
    third = transfers.start(1)  # it is sent together with those that wait
    assert await transfers.started(1) == {"ForwardTransfers": 1}
    one.cancel()
    another.cancel()
    await asyncio.wait([one, another])
    assert transfers.slow.cancelled.empty()
    (last,) = third.values()
    last.cancel()
    async with asyncio.timeout(10):
        assert await transfers.slow.cancelled.get() == "ForwardTransfers"
    transfers.slow.proceed.set()
    await assert_own_responses(first)


async def test_setting_turns_forwarding_off(
    slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
) -> None:
    async with run_transfers(keys, tmp_path, slow_target, slow_services, gateway_forward_transfers=False) as transfers:
        requests = transfers.start(5)
        assert await transfers.started(5) == {"TransferMoney": 5}
        assert transfers.arrived == 0
        slow_services.proceed.set()
        await assert_own_responses(requests)


class EarlierBank:
    """Bank of the release before ForwardTransfers: it has only TransferMoney."""

    def __init__(self, slow: SlowServices) -> None:
        handler = grpc.unary_unary_rpc_method_handler(
            slow.TransferMoney,
            bank_pb2.TransferMoneyRequest.FromString,
            bank_pb2.TransferMoneyResponse.SerializeToString,
        )
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"TransferMoney": handler}

    def register(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(BANK, self._methods),))
        server.add_registered_method_handlers(BANK, self._methods)


async def assert_transfers_continue_singly(transfers: Transfers) -> None:
    first = await transfers.occupy()
    waiting = transfers.start(4)
    await transfers.until_arrived(6)
    transfers.slow.proceed.set()
    assert await transfers.started(4) == {"TransferMoney": 4}
    await assert_own_responses(first | waiting)


async def test_transfers_continue_singly_while_the_bank_is_of_an_earlier_release(
    slow_services: SlowServices, keys: Keys, tmp_path: Path
) -> None:
    target = f"{HOST}:{free_ports(1)[0]}"
    policy = {"TransferMoney": bank_policy.POLICY["TransferMoney"]}
    service = Service(EarlierBank(slow_services).register, policy)
    async with (
        grpc_server(target, keys.verifier(), {BANK: service}),
        run_transfers(keys, tmp_path, target, slow_services) as transfers,
    ):
        await assert_transfers_continue_singly(transfers)


async def test_transfers_continue_singly_while_the_bank_lacks_the_gateways_key(
    slow_services: SlowServices, keys: Keys, tmp_path: Path
) -> None:
    target = f"{HOST}:{free_ports(1)[0]}"
    verifier = TokenVerifier(USERS, {USERS: KeySet.from_text(keys.jwks(USERS))}, AUDIENCE)
    service = Service(
        lambda server: bank_pb2_grpc.add_BankServiceServicer_to_server(slow_services, server), bank_policy.POLICY
    )
    async with (
        grpc_server(target, verifier, {BANK: service}),
        run_transfers(keys, tmp_path, target, slow_services) as transfers,
    ):
        await assert_transfers_continue_singly(transfers)
