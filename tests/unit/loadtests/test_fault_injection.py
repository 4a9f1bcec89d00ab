"""Proxy, order of faults, and table of outages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from itertools import islice

import pytest

from loadtests.faults.outages import Outage, outages_to_markdown
from loadtests.faults.proxy import Proxy
from loadtests.faults.schedule import order_faults
from stack.ports import HOST, free_ports
from tests.waiting import until


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """Proxy in front of an echo server."""
    port, target = free_ports(2)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionResetError):
            while data := await reader.read(100):
                writer.write(data)

    async with await asyncio.start_server(echo, HOST, target), Proxy(port, target) as proxy:
        yield proxy


async def receive(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(100), 5)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await receive(reader) == b""
    except ConnectionResetError:
        return True


class TestProxy:
    async def test_proxy_forwards_both_directions_and_end_of_file(self, proxy: Proxy) -> None:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"hello")
        assert await receive(reader) == b"hello"
        writer.write_eof()
        assert await receive(reader) == b""
        writer.close()

    async def test_disconnect_resets_connections_and_accepts_new_ones(self, proxy: Proxy) -> None:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"hello")
        await receive(reader)
        proxy.disconnect()
        assert await until(lambda: is_closed(reader))
        writer.close()
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"again")
        assert await receive(reader) == b"again"
        writer.close()

    async def test_stalled_proxy_holds_data_until_resumed(self, proxy: Proxy) -> None:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        proxy.stall()
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(100), 0.1)
        proxy.resume()
        assert await receive(reader) == b"hello"
        writer.close()

    async def test_proxy_closes_connections_while_target_is_down(self) -> None:
        port, target = free_ports(2)
        async with Proxy(port, target):
            reader, writer = await asyncio.open_connection(HOST, port)
            assert await until(lambda: is_closed(reader))
            writer.close()


class TestOrderFaults:
    NAMES = ("a", "b", "c", "d", "e")

    def test_order_depends_on_the_seed_only(self) -> None:
        first, same, other = (list(islice(order_faults(self.NAMES, seed), 30)) for seed in (1, 1, 2))
        assert first == same != other

    def test_order_starts_with_every_fault(self) -> None:
        assert set(islice(order_faults(self.NAMES, 3), 5)) == set(self.NAMES)


def test_outages_table_has_failed_requests_and_recovery() -> None:
    bank = Outage(
        component="bank",
        seconds=20,
        requests={"REST transfer": 100, "balance": 50},
        failed={"REST transfer": 80},
        errors={"UNAVAILABLE": 79, "DEADLINE_EXCEEDED": 1},
        longest_ms=5012,
        recovery_seconds=1.26,
        verdict="SOUND",
    )
    kafka = Outage(
        component="kafka",
        seconds=20,
        requests={},
        failed={},
        errors={},
        longest_ms=90,
        recovery_seconds=0.5,
        verdict="SOUND",
    )
    assert outages_to_markdown([bank, kafka]).splitlines()[2:] == [
        "| bank | DEADLINE_EXCEEDED, UNAVAILABLE: 80 of 100 REST transfer | 5.0 s | 1.3 s | sound |",
        "| kafka | none | 0.1 s | 0.5 s | sound |",
    ]
