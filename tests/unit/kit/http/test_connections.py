"""Limits of open connections: in total and per address."""

import asyncio
import resource
from typing import Any

import pytest
import structlog

from kit.http import connections
from kit.http.connections import UNREAD_BYTES, ConnectionLimits, max_connections, raise_descriptor_limit
from kit.http.server import HealthChecksOnly
from tests.unit.kit.http.virtual_server import Client, VirtualServer, run, virtual_server

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
CHECK = b"GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n"
OTHER_ADDRESS = "198.51.100.1"


class Busy:
    """App that responds to health checks and keeps all other requests waiting."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].startswith("/health/"):
            await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


def busy_server(**limits: Any) -> Any:
    app = Busy()
    return virtual_server(app, limits=ConnectionLimits(**limits), reserve_app=HealthChecksOnly(app))


async def occupy(server: VirtualServer, count: int, address: str = "192.0.2.1") -> list[Client]:
    """Connect clients whose requests stay in progress."""
    clients = [server.connect(address) for _ in range(count)]
    for client in clients:
        client.send(GET)
        await client.settle()
    return clients


async def status(client: Client, request: bytes = GET) -> bytes:
    """Send a request. Return the status of the response, or an empty value if no response has arrived."""
    client.send(request)
    await client.settle()
    return client.received[9:12]


@pytest.mark.parametrize("limits", [{"total": 3, "per_address": 9}, {"total": 9, "per_address": 3}])
def test_above_a_limit_only_health_checks_are_served(limits: dict[str, int]) -> None:
    async def check() -> None:
        async with busy_server(**limits) as server:
            clients = await occupy(server, 3)
            refused = server.connect()
            assert await status(refused) == b"503"
            assert b"try again in a few seconds" in refused.received
            assert not refused.is_connected
            assert await status(server.connect(), CHECK) == b"200"
            for other in (CHECK.replace(b"ready", b"nowhere"), CHECK.replace(b"GET", b"POST")):
                assert await status(server.connect(), other) == b"503"
            upgrade = GET.replace(b"host", b"connection: upgrade\r\nupgrade: websocket\r\nhost")
            assert await status(server.connect(), upgrade) == b"503"
            assert all(client.is_connected for client in clients)

    run(check)


def test_limit_of_one_address_does_not_apply_to_another() -> None:
    async def check() -> None:
        async with busy_server(total=9, per_address=2) as server:
            await occupy(server, 2)
            assert await status(server.connect()) == b"503"
            (client,) = await occupy(server, 1, OTHER_ADDRESS)
            assert client.is_connected
            assert client.received == b""

    run(check)


def test_addresses_of_one_ipv6_network_share_a_limit() -> None:
    async def check() -> None:
        async with busy_server(total=9, per_address=2) as server:
            await occupy(server, 1, "2001:db8:1:2::1")
            await occupy(server, 1, "2001:db8:1:2:ffff::1")
            assert await status(server.connect("2001:db8:1:2::7")) == b"503"
            assert await status(server.connect("2001:db8:1:3::7")) == b""

    run(check)


@pytest.mark.parametrize("exempt", ["192.0.2.1", "192.0.2.0/24", "*"])
def test_trusted_proxy_has_no_limit_by_address(exempt: str) -> None:
    async def check() -> None:
        async with busy_server(total=9, per_address=2, exempt=["a name", exempt]) as server:
            clients = await occupy(server, 5)
            assert [client.received for client in clients] == [b""] * 5

    run(check)


@pytest.mark.parametrize("limits", [{"total": 3, "per_address": 9}, {"total": 9, "per_address": 3}])
def test_new_connection_replaces_the_oldest_one_that_waits_for_its_client(limits: dict[str, int]) -> None:
    async def check() -> None:
        async with busy_server(**limits) as server:
            (busy,) = await occupy(server, 1)
            oldest, newer = server.connect(), server.connect()
            await occupy(server, 1)
            assert busy.is_connected
            assert not oldest.is_connected
            assert newer.is_connected
            assert len(server.connections) == 3

    run(check)


def test_idle_reserve_connections_make_room_for_a_health_check() -> None:
    async def check() -> None:
        async with busy_server(total=3, per_address=3, reserve=2) as server:
            await occupy(server, 3)
            for _ in range(100):
                server.connect()
                assert len(server.connections) <= 5
            assert len(server.connections) == 5
            assert await status(server.connect(), CHECK) == b"200"

    run(check)


def test_output_that_clients_do_not_read_is_limited_and_costs_the_largest_address_its_connections() -> None:
    async def respond(_: Any, __: Any, send: Any) -> None:
        size = UNREAD_BYTES // 16
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    async def check() -> None:
        async with virtual_server(respond) as server:
            modest, *greedy = [server.connect(OTHER_ADDRESS), *(server.connect() for _ in range(20))]
            for client in (modest, *greedy):
                client.transport.is_client_reading = False
                client.send(GET)
            await modest.wait(3)
            assert modest.is_connected
            unread = [len(client.transport.buffer) for client in (modest, *greedy) if client.is_connected]
            assert len(unread) > 10
            assert sum(unread) <= UNREAD_BYTES
            modest.transport.is_client_reading = True
            modest.transport.flush()
            assert len(modest.received) > UNREAD_BYTES // 16

    run(check)


def test_closed_connections_are_no_longer_counted() -> None:
    async def check() -> None:
        async with busy_server(total=2, per_address=2) as server:
            for client in await occupy(server, 2):
                client.transport.abort()
            await asyncio.sleep(1)
            assert len(server.connections) == 0
            assert await status(server.connect()) == b""

    run(check)


def test_refused_connections_are_logged_once_a_minute() -> None:
    async def check() -> None:
        async with busy_server(total=1) as server:
            await occupy(server, 1)
            with structlog.testing.capture_logs() as lines:
                for _ in range(90):
                    await status(server.connect())
                    await asyncio.sleep(1)
            warnings = [line for line in lines if line["event"] == "connections refused"]
            assert len(warnings) == 2
            assert warnings[1]["total"] > 50

    run(check)


def test_connection_whose_stage_fails_does_not_stop_the_sweep_of_others() -> None:
    async def check() -> None:
        async with virtual_server(Busy()) as server:
            broken, other = server.connect(), server.connect()
            broken.transport.protocol.stage = None
            with structlog.testing.capture_logs():
                await other.read_until_closed(15)
            assert not broken.is_connected

    run(check)


def test_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        assert raise_descriptor_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_default_number_of_connections_fits_into_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1_024))
    assert connections.default_connections() == max_connections() == 1_024 - connections.OTHER_DESCRIPTORS
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    assert connections.default_connections() == 4_000
