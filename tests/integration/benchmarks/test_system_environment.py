import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import asyncpg
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from benchmarks import system_environment
from benchmarks.figure import BenchError, Options
from benchmarks.latency_comparison import transfer_by_sql
from benchmarks.ledger import Ledger
from benchmarks.system_environment import ManyOwnersEnvironment
from kit.auth.tokens import TokenSigner
from kit.http.server import http_server
from stack.ports import free_ports
from tests.conftest import USERS, Keys
from tests.integration.benchmarks.accounts import open_accounts

PREPARED_REQUESTS = 3


class FakeGateway:
    """REST API that makes a transfer for each new idempotency key; a repeated key gets the same response."""

    def __init__(self, sql: asyncpg.Connection) -> None:
        self._sql = sql
        self._lock = asyncio.Lock()
        self.keys = set[str]()
        self.requests = 0
        self.makes_transfers = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond with 201."""
        request = Request(scope, receive)
        await request.body()
        key = request.headers["idempotency-key"]
        self.requests += 1
        async with self._lock:
            if key not in self.keys and self.makes_transfers:
                self.keys.add(key)
                await transfer_by_sql(self._sql, 0, 1)
        await JSONResponse({"createdAt": "now"}, 201)(scope, receive, send)


class FakeSystemEnvironment(ManyOwnersEnvironment):
    """Environment with a fake gateway instead of a system."""

    gateway = f"127.0.0.1:{free_ports(1)[0]}"

    def __init__(self, app: FakeGateway, ledger_url: str, signer: TokenSigner) -> None:
        super().__init__(Options(seconds=0.2))
        self._app = app
        self._ledger_url = ledger_url
        self.signer = signer

    def pids(self) -> Mapping[str, Sequence[int]]:
        return {}

    async def _start(self) -> None:
        self.ledger = await self._exit_stack.enter_async_context(Ledger.open(self._ledger_url))
        await self._exit_stack.enter_async_context(http_server(self._app, self.gateway, lifespan="off"))


@pytest.fixture
async def gateway(sql: asyncpg.Connection) -> FakeGateway:
    await open_accounts(sql, 2)
    return FakeGateway(sql)


@pytest.fixture
async def environment(
    gateway: FakeGateway, ledger_url: str, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ManyOwnersEnvironment]:
    monkeypatch.setattr(system_environment, "_REQUESTS", PREPARED_REQUESTS)
    async with FakeSystemEnvironment(gateway, ledger_url, keys.signers[USERS]) as environment:
        yield environment


async def test_run_longer_than_the_prepared_requests_repeats_no_key(
    environment: ManyOwnersEnvironment, gateway: FakeGateway
) -> None:
    run = await environment.measure_rest("uniform")
    assert PREPARED_REQUESTS < run.acknowledged == gateway.requests == len(gateway.keys)


async def test_run_whose_responses_are_no_new_transfers_is_invalid(
    environment: ManyOwnersEnvironment, gateway: FakeGateway
) -> None:
    gateway.makes_transfers = False
    with pytest.raises(BenchError, match="the ledger is not consistent"):
        await environment.measure_rest("uniform")
