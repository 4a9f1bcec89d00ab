"""What the command says of services that are there, and of others that are not."""

import asyncio
import importlib.metadata
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, Response

import kit.telemetry.metrics  # noqa: F401  as every process has them
from cli import status
from cli.status import Overall, Service, ask
from kit.http.admin import Check, admin_app
from kit.http.server import http_server
from stack.ports import free_ports

NOBODY = "http://127.0.0.1:1"


async def answers() -> None:
    """A dependency that is there."""


async def fails() -> None:
    raise ConnectionRefusedError


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """An admin interface: its address."""
    (port,) = free_ports(1)
    async with http_server(app, f"127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def service(checks: Mapping[str, Check]) -> AsyncIterator[str]:
    """As every service has one."""
    async with serving(admin_app(checks)) as address:
        yield address


class TestServices:
    async def test_that_are_all_ready(self) -> None:
        async with service({"database": answers}) as bank, service({}) as gateway:
            found = await ask({"bank": f"{bank}/", "gateway": gateway})
        assert found.overall is Overall.READY
        assert found.services["bank"].state == "ready"
        assert found.services["bank"].checks == {"database": "ok"}
        assert found.services["bank"].version == importlib.metadata.version("wallet")
        uptime = found.services["gateway"].uptime_seconds
        assert uptime is not None
        assert uptime > 0

    async def test_of_which_one_lacks_what_it_stands_on(self) -> None:
        async with service({"database": fails, "kafka": answers}) as bank, service({}) as gateway:
            found = await ask({"bank": bank, "gateway": gateway})
        assert found.overall is Overall.NOT_READY
        assert found.services["bank"].state == "not ready"
        assert found.services["bank"].checks == {"database": "ConnectionRefusedError", "kafka": "ok"}

    async def test_of_which_one_is_away_are_told_all_the_same(self) -> None:
        async with service({}) as gateway:
            found = await ask({"bank": NOBODY, "gateway": gateway})
        assert found.overall is Overall.NOT_READY
        assert found.services["bank"] == Service("no answer")
        assert found.services["gateway"].state == "ready"
        assert found.figures["outbox_backlog"] is None

    async def test_of_which_none_is_there(self) -> None:
        found = await ask({"bank": NOBODY, "gateway": "not an address"})
        assert found.overall is Overall.SILENT

    async def test_that_are_somebody_elses_do_not_count(self) -> None:
        stranger = FastAPI()
        stranger.add_api_route("/{path:path}", lambda: Response("hello"), response_model=None)
        async with serving(stranger) as address:
            assert (await ask({"bank": address})).overall is Overall.SILENT

    async def test_that_are_frozen_are_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(status, "_TIMEOUT_SECONDS", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as frozen:  # connects, and says nothing
            async with service({}) as gateway, asyncio.timeout(2):
                found = await ask({"bank": f"http://127.0.0.1:{frozen.getsockname()[1]}", "gateway": gateway})
        assert found.services["bank"].state == "no answer"
        assert found.services["gateway"].state == "ready"


METRICS = """\
wallet_rpc_duration_seconds_count{code="OK",method="/wallet.bank.v1.BankService/TransferMoney"} 7.0
wallet_rpc_duration_seconds_count{code="OK",method="/wallet.bank.v1.BankService/BatchTransferMoney"} 2.0
wallet_rpc_duration_seconds_count{code="INTERNAL",method="/wallet.bank.v1.BankService/TransferMoney"} 100.0
wallet_rpc_duration_seconds_count{code="OK",method="/wallet.bank.v1.BankService/GetBalance"} 100.0
wallet_bank_outbox_backlog 12345.0
wallet_card_top_ups_open{status="CREATED"} 2.0
wallet_card_top_ups_open{status="CAPTURED"} 1.0
wallet_card_acquirer_circuit{wallet_card_acquirer_circuit="closed"} 0.0
wallet_card_acquirer_circuit{wallet_card_acquirer_circuit="opened"} 1.0
wallet_analytics_compared_timestamp_seconds 0.0
"""


@asynccontextmanager
async def with_figures() -> AsyncIterator[str]:
    app = FastAPI()
    app.add_api_route("/health/ready", lambda: {"status": "ready", "checks": {}})
    app.add_api_route("/metrics", lambda: Response(METRICS, media_type="text/plain"), response_model=None)
    async with serving(app) as address:
        yield address


class TestFigures:
    async def test_are_added_up_from_what_each_service_tells(self) -> None:
        async with with_figures() as address:
            found = await ask({"bank": address, "card": address, "analytics": address})
        assert found.figures["transfer_calls"] == 9
        assert found.figures["outbox_backlog"] == 12_345
        assert found.figures["top_ups_open"] == 3
        assert found.figures["acquirer_circuit"] == "opened"
        assert found.figures["compared_seconds_ago"] is None
        assert found.figures["websockets"] is None

    async def test_are_read_by_people_and_by_programs(self, capsys: pytest.CaptureFixture[str]) -> None:
        async with with_figures() as address:
            services = {"bank": address, "gateway": NOBODY}
            told = [await asyncio.to_thread(status.status, services, as_json=as_json) for as_json in (False, True)]
        assert told == [Overall.NOT_READY, Overall.NOT_READY]
        table, _, program = capsys.readouterr().out.partition("{")
        first, bank, gateway, _, *figures = table.splitlines()
        assert first.split() == ["service", "state", "since", "version", "what", "it", "stands", "on"]
        assert (bank.split(), gateway.split()) == (["bank", "ready"], ["gateway", "no", "answer"])
        assert "operations that are not published yet    12,345" in figures
        assert "WebSockets                               not known" in figures
        said = json.loads("{" + program)
        assert said["services"]["gateway"]["state"] == "no answer"
        assert said["figures"]["outbox_backlog"] == 12_345

    @pytest.mark.parametrize(
        ("seconds", "told"), [(0.4, "0 s"), (61, "1 min 1 s"), (3_600, "1 h 0 min"), (100_000, "1 d 3 h")]
    )
    def test_since_when_is_told_in_two_units(self, seconds: float, told: str) -> None:
        assert status._duration(seconds) == told
