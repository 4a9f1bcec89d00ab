"""HTTP server: start, shutdown and socket options."""

import asyncio
import logging
import socket

import httpx
import pytest
import uvloop
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from kit.http.admin import admin_app
from kit.http.connections import ConnectionLimits
from kit.http.server import http_server
from kit.http.uvicorn_internals.http_protocol import BoundedHttpProtocol
from stack.ports import free_ports
from tests.tools import needs_ipv6


async def test_port_in_use_raises_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        address = f"127.0.0.1:{occupied.getsockname()[1]}"
        with pytest.raises(OSError, match="in use"):
            async with http_server(FastAPI(), address):
                pass


async def test_server_accepts_connections_on_entry() -> None:
    (port,) = free_ports(1)
    async with http_server(admin_app({}), f"127.0.0.1:{port}"):
        socket.create_connection(("127.0.0.1", port)).close()


async def test_connections_send_small_packets_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TCP_NODELAY, a response's second half waits for the delayed ACK of the first half: 40 ms on Linux."""
    options: list[int] = []
    connected = BoundedHttpProtocol.connection_made

    def connection_made(self: BoundedHttpProtocol, transport: asyncio.Transport) -> None:
        accepted = transport.get_extra_info("socket")
        options.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        connected(self, transport)

    monkeypatch.setattr(BoundedHttpProtocol, "connection_made", connection_made)
    (port,) = free_ports(1)
    async with http_server(admin_app({}), f"127.0.0.1:{port}"), httpx.AsyncClient(trust_env=False) as client:
        await client.get(f"http://127.0.0.1:{port}/health/live")
    assert len(options) == 1
    assert options[0] != 0


def test_client_that_stops_sending_is_not_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        started, release, completed = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def wait(scope: Scope, receive: Receive, send: Send) -> None:
            assert not started.is_set(), "a pipelined request runs although its client has disconnected"
            started.set()
            await receive()
            await release.wait()
            await PlainTextResponse("late")(scope, receive, send)
            completed.set()

        (port,) = free_ports(1)
        async with http_server(wait, f"127.0.0.1:{port}", lifespan="off"), asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 16)
            await started.wait()
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            release.set()
            await completed.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # uvloop raises for a write to a lost connection
        runner.run(check())
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


@needs_ipv6
@pytest.mark.parametrize("host", ["[::1]", "[::]"])
async def test_server_listens_on_an_ipv6_address(host: str) -> None:
    (port,) = free_ports(1)
    async with http_server(admin_app({}), f"{host}:{port}"), httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://[::1]:{port}/health/live")).status_code == 200
        assert f'listen="{host}:{port}"' in (await client.get(f"http://[::1]:{port}/metrics")).text


async def test_server_frees_its_port() -> None:
    (port,) = free_ports(1)
    for _ in range(2):
        async with http_server(FastAPI(), f"127.0.0.1:{port}"):
            pass


async def test_request_in_progress_finishes_during_shutdown() -> None:
    app, entered, leave = FastAPI(), asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> str:
        entered.set()
        await leave.wait()
        return "done"

    (port,) = free_ports(1)
    async with httpx.AsyncClient(trust_env=False) as client:
        async with http_server(app, f"127.0.0.1:{port}"):
            request = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/slow"))
            await entered.wait()
            asyncio.get_running_loop().call_later(0.1, leave.set)
        assert (await request).json() == "done"


async def test_health_checks_are_served_while_all_connections_are_in_use() -> None:
    app, entered, leave = admin_app({}), asyncio.Semaphore(0), asyncio.Event()

    @app.get("/slow")
    async def slow() -> None:
        entered.release()
        await leave.wait()

    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    async with (
        http_server(app, f"127.0.0.1:{port}", limits=ConnectionLimits(total=2, per_address=2)),
        httpx.AsyncClient(trust_env=False) as client,
    ):
        requests = [asyncio.create_task(client.get(f"{url}/slow")) for _ in range(2)]
        for _ in requests:
            await entered.acquire()
        assert (await client.get(f"{url}/metrics")).status_code == 503
        check = await client.get(f"{url}/health/ready")
        assert (check.status_code, check.headers["connection"]) == (200, "close")
        leave.set()
        assert [(await request).status_code for request in requests] == [200, 200]
        metrics = (await client.get(f"{url}/metrics")).text
        assert f'wallet_http_connections_refused_total{{limit="address",listen="127.0.0.1:{port}"}} 2.0' in metrics
