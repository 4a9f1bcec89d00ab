"""Wires that are cut, orders that a seed decides, and tables of what outages cost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from itertools import islice

import pytest

from loadtests.faults.outages import Outage, table
from loadtests.faults.proxy import Proxy
from loadtests.faults.schedule import order
from stack.ports import HOST, free_ports
from tests.waiting import until


@pytest.fixture
async def wire() -> AsyncIterator[Proxy]:
    """To somebody who says everything again."""
    port, end = free_ports(2)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionResetError):
            while data := await reader.read(100):
                writer.write(data)

    async with await asyncio.start_server(echo, HOST, end), Proxy(port, end) as wire:
        yield wire


async def said(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(100), 5)


class TestProxy:
    async def test_hands_on_both_ways_and_the_end_too(self, wire: Proxy) -> None:
        reader, writer = await asyncio.open_connection(HOST, wire.port)
        writer.write(b"hello")
        assert await said(reader) == b"hello"
        writer.write_eof()
        assert await said(reader) == b""
        writer.close()

    async def test_cut_ends_what_is_open_and_lets_new_ones_in(self, wire: Proxy) -> None:
        reader, writer = await asyncio.open_connection(HOST, wire.port)
        writer.write(b"hello")
        await said(reader)
        wire.cut()
        assert await until(lambda: _is_over(reader))
        writer.close()
        reader, writer = await asyncio.open_connection(HOST, wire.port)
        writer.write(b"again")
        assert await said(reader) == b"again"
        writer.close()

    async def test_stalled_keeps_what_is_said_until_it_goes_on(self, wire: Proxy) -> None:
        reader, writer = await asyncio.open_connection(HOST, wire.port)
        wire.stall()
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(100), 0.1)
        wire.resume()
        assert await said(reader) == b"hello"
        writer.close()

    async def test_with_nobody_at_its_end_hangs_up(self) -> None:
        port, end = free_ports(2)
        async with Proxy(port, end):
            reader, writer = await asyncio.open_connection(HOST, port)
            assert await until(lambda: _is_over(reader))
            writer.close()


async def _is_over(reader: asyncio.StreamReader) -> bool:
    try:
        return await said(reader) == b""
    except ConnectionResetError:
        return True


class TestOrder:
    NAMES = ("a", "b", "c", "d", "e")

    def test_is_the_same_for_the_same_seed_and_not_for_another(self) -> None:
        first, same, other = (list(islice(order(self.NAMES, seed), 30)) for seed in (1, 1, 2))
        assert first == same != other

    def test_begins_with_each_of_them(self) -> None:
        assert set(islice(order(self.NAMES, 3), 5)) == set(self.NAMES)


def test_a_table_says_what_callers_saw_of_what_they_asked() -> None:
    lost = Outage(
        part="bank",
        seconds=20,
        asked={"REST transfer": 100, "balance": 50},
        failed={"REST transfer": 80},
        errors={"UNAVAILABLE": 79, "DEADLINE_EXCEEDED": 1},
        longest_ms=5012,
        recovery_seconds=1.26,
        verdict="SOUND",
    )
    none = Outage(
        part="kafka",
        seconds=20,
        asked={},
        failed={},
        errors={},
        longest_ms=90,
        recovery_seconds=0.5,
        verdict="SOUND",
    )
    assert table([lost, none]).splitlines()[2:] == [
        "| bank | DEADLINE_EXCEEDED, UNAVAILABLE: 80 of 100 REST transfer | 5.0 s | 1.3 s | sound |",
        "| kafka | nothing | 0.1 s | 0.5 s | sound |",
    ]
