"""Status of services that run, fail, freeze or are down."""

import asyncio
import importlib.metadata
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from fastapi import FastAPI, Response

import kit.telemetry.metrics  # noqa: F401  registers the metrics that every process has
from cli import status
from cli.status import OverallState, ServiceState, query_status
from kit.http.admin import HealthCheck, admin_app
from kit.http.server import http_server
from stack.ports import free_ports

UNREACHABLE = "http://127.0.0.1:1"


async def succeeds() -> None:
    """Check of a dependency that is available."""


async def fails() -> None:
    raise ConnectionRefusedError


@asynccontextmanager
async def serving_app(app: FastAPI) -> AsyncIterator[str]:
    """Serve the app, and yield its address."""
    (port,) = free_ports(1)
    async with http_server(app, f"127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def service(checks: Mapping[str, HealthCheck]) -> AsyncIterator[str]:
    """Serve the admin interface of a service with these checks, and yield its address."""
    async with serving_app(admin_app(checks)) as address:
        yield address


class TestServices:
    async def test_all_services_are_ready(self) -> None:
        async with service({"database": succeeds}) as bank, service({}) as gateway:
            found = await query_status({"bank": f"{bank}/", "gateway": gateway})
        assert found.overall is OverallState.READY
        assert found.services["bank"].state == "ready"
        assert found.services["bank"].checks == {"database": "ok"}
        assert found.services["bank"].version == importlib.metadata.version("wallet")
        uptime = found.services["gateway"].uptime_seconds
        assert uptime is not None
        assert uptime > 0

    async def test_service_with_malformed_metrics_counts_as_unreachable(self) -> None:
        app = FastAPI()
        app.add_api_route("/health/ready", lambda: {"status": "ready", "checks": {}})
        app.add_api_route("/metrics", lambda: Response('a{b="c} d', media_type="text/plain"))
        async with serving_app(app) as address:
            found = await query_status({"bank": address})
        assert found.overall is OverallState.UNREACHABLE

    async def test_failing_dependency_makes_a_service_not_ready(self) -> None:
        async with service({"database": fails, "kafka": succeeds}) as bank, service({}) as gateway:
            found = await query_status({"bank": bank, "gateway": gateway})
        assert found.overall is OverallState.NOT_READY
        assert found.services["bank"].state == "not ready"
        assert found.services["bank"].checks == {"database": "ConnectionRefusedError", "kafka": "ok"}

    async def test_unreachable_service_does_not_hide_the_others(self) -> None:
        async with service({}) as gateway:
            found = await query_status({"bank": UNREACHABLE, "gateway": gateway})
        assert found.overall is OverallState.NOT_READY
        assert found.services["bank"] == ServiceState("no answer")
        assert found.services["gateway"].state == "ready"
        assert found.figures["outbox_backlog"] is None

    async def test_stack_is_unreachable_if_no_service_responds(self) -> None:
        found = await query_status({"bank": UNREACHABLE, "gateway": "not an address"})
        assert found.overall is OverallState.UNREACHABLE

    async def test_unrelated_http_server_counts_as_unreachable(self) -> None:
        unrelated = FastAPI()
        unrelated.add_api_route("/{path:path}", lambda: Response("hello"), response_model=None)
        async with serving_app(unrelated) as address:
            assert (await query_status({"bank": address})).overall is OverallState.UNREACHABLE

    async def test_frozen_service_does_not_block_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        new_timeout = asyncio.timeout
        timeouts: list[asyncio.Timeout] = []

        def expire_first(_seconds: float) -> asyncio.Timeout:
            timeouts.append(new_timeout(None if timeouts else 0))
            return timeouts[-1]

        # Only the module under test gets these time-outs, because servers of the session use the same loop.
        monkeypatch.setattr(status, "asyncio", SimpleNamespace(**vars(asyncio) | {"timeout": expire_first}))
        with socket.create_server(("127.0.0.1", 0)) as frozen:  # accepts connections, never responds
            async with service({}) as gateway:
                found = await query_status({"bank": f"http://127.0.0.1:{frozen.getsockname()[1]}", "gateway": gateway})
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
async def serving_figures() -> AsyncIterator[str]:
    app = FastAPI()
    app.add_api_route("/health/ready", lambda: {"status": "ready", "checks": {}})
    app.add_api_route("/metrics", lambda: Response(METRICS, media_type="text/plain"), response_model=None)
    async with serving_app(app) as address:
        yield address


class TestFigures:
    async def test_figures_are_summed_from_the_services_metrics(self) -> None:
        async with serving_figures() as address:
            found = await query_status({"bank": address, "card": address, "analytics": address})
        assert found.figures["transfer_calls"] == 9
        assert found.figures["outbox_backlog"] == 12_345
        assert found.figures["top_ups_open"] == 3
        assert found.figures["acquirer_circuit"] == "opened"
        assert found.figures["compared_seconds_ago"] is None
        assert found.figures["websockets"] is None

    async def test_status_is_printed_as_table_and_as_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        async with serving_figures() as address:
            services = {"bank": address, "gateway": UNREACHABLE}
            states = [
                await asyncio.to_thread(status.show_status, services, as_json=as_json) for as_json in (False, True)
            ]
        assert states == [OverallState.NOT_READY, OverallState.NOT_READY]
        table, _, program = capsys.readouterr().out.partition("{")
        first, bank, gateway, _, *figures = table.splitlines()
        assert first.split() == ["service", "state", "uptime", "version", "dependencies"]
        assert (bank.split(), gateway.split()) == (["bank", "ready"], ["gateway", "no", "answer"])
        assert "outbox rows not yet published                     12,345" in figures
        assert "open WebSockets                                   unknown" in figures
        report = json.loads("{" + program)
        assert report["services"]["gateway"]["state"] == "no answer"
        assert report["figures"]["outbox_backlog"] == 12_345

    @pytest.mark.parametrize(
        ("seconds", "expected"), [(0.4, "0 s"), (61, "1 min 1 s"), (3_600, "1 h 0 min"), (100_000, "1 d 3 h")]
    )
    def test_duration_has_at_most_two_units(self, seconds: float, expected: str) -> None:
        assert status._duration(seconds) == expected
