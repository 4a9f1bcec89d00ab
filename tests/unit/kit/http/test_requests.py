"""Limits of HTTP requests: their size, the number of their parts, and the time of each stage."""

import asyncio
import gc
import weakref
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.http.connections import ConnectionLimits
from tests.unit.kit.http.virtual_server import VirtualServer, run, virtual_server

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def post_head(size: int) -> bytes:
    return b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size


async def respond(send: Any, text: str) -> None:
    headers = [(b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


class Echo:
    """App that reads the body, then returns its size."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size, more = size + len(message["body"]), message["more_body"]
        await respond(send, f"<{size}>")


async def respond_early(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, "early")


def test_incomplete_head_gets_a_408_response() -> None:
    async def check() -> None:
        async with virtual_server(Echo()) as server:
            silent, slow = server.connect(), server.connect()
            slow.send(GET[:-2])
            assert (await silent.read_until_closed(15)).startswith(b"HTTP/1.1 408 Request Timeout")
            assert (await slow.read_until_closed(15)).startswith(b"HTTP/1.1 408 ")

    run(check)


def test_time_for_a_head_starts_again_with_each_request() -> None:
    async def check() -> None:
        async with virtual_server(Echo()) as server:
            client = server.connect()
            for _ in range(3):
                await client.wait(4)
                client.send(GET)
            client.send(GET[:9])
            responses = await client.read_until_closed(15)
            assert (responses.count(b"HTTP/1.1 200 "), responses.count(b"HTTP/1.1 408 ")) == (3, 1)

    run(check)


def test_incomplete_body_gets_a_408_response() -> None:
    async def check() -> None:
        app = Echo()
        async with virtual_server(app) as server:
            client = server.connect()
            client.send(post_head(9))
            assert (await client.read_until_closed(65)).startswith(b"HTTP/1.1 408 ")
            assert not server.state.tasks

    run(check)


@pytest.mark.parametrize("drip", [b"", b"x"])
@pytest.mark.parametrize("head", [post_head(999), CHUNKED])
def test_body_after_an_early_response_does_not_keep_the_connection_open(head: bytes, drip: bytes) -> None:
    async def check() -> None:
        async with virtual_server(respond_early) as server:
            client = server.connect()
            client.send(head)
            await client.settle()
            assert client.received.endswith(b"early")
            for _ in range(7):
                client.send(drip if head != CHUNKED or not drip else b"1\r\nx\r\n")
                await client.wait(1)
            assert not client.is_connected

    run(check)


def test_connection_can_be_reused_after_the_rest_of_an_unread_body() -> None:
    async def check() -> None:
        async with virtual_server(respond_early) as server:
            client = server.connect()
            client.send(post_head(9))
            await client.settle()
            client.send(b"123456789" + GET)
            await client.settle()
            assert client.received.count(b"HTTP/1.1 200 ") == 2

    run(check)


def test_blank_lines_do_not_keep_a_connection_open() -> None:
    async def check() -> None:
        async with virtual_server(Echo()) as server:
            client = server.connect()
            client.send(GET)
            for _ in range(7):
                client.send(b"\r\n")
                await client.wait(1)
            assert not client.is_connected

    run(check)


def test_client_that_reads_nothing_is_disconnected() -> None:
    async def send_without_end(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(10_000):
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            await asyncio.sleep(0.01)

    async def check() -> None:
        async with virtual_server(send_without_end) as server:
            client = server.connect()
            client.transport.is_client_reading = False
            client.send(GET)
            await client.read_until_closed(35)
            assert client.transport.most_buffered < 3 * 65_536

    run(check)


def test_client_that_does_not_read_the_end_of_a_response_is_disconnected() -> None:
    async def check() -> None:
        async with virtual_server(Echo()) as server:
            client = server.connect()
            client.transport.is_client_reading = False
            client.send(GET.replace(b"host", b"connection: close\r\nhost"))
            await client.wait(15)
            assert not client.is_connected

    run(check)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 129 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 9_000, 431),
        (CHUNKED + b"1\r\nx\r\n" * 3_000, 413),
        (CHUNKED + b"0\r\n" + b"a:\r\n" * 3_000, 413),
        (b"\r\n" * 20_000, 431),
        (b"\x16\x03\x01\r\n\r\n", 400),
    ],
)
def test_malformed_or_too_large_request_is_refused_with_a_message(request_: bytes, status: int) -> None:
    async def check() -> None:
        async with virtual_server(Echo()) as server:
            client = server.connect()
            client.send(request_)
            response = await client.read_until_closed(5)
            assert response.startswith(b"HTTP/1.1 %d " % status)
            assert response.endswith(b"\n")
            assert not server.state.tasks

    run(check)


def test_too_many_pipelined_requests_are_refused_after_the_responses_to_the_first_ones() -> None:
    async def check() -> None:
        app = Echo()
        async with virtual_server(app) as server:
            patient, greedy = server.connect(), server.connect()
            patient.send(GET * 16)
            await patient.settle()
            assert patient.received.count(b"HTTP/1.1 200 ") == 16
            greedy.send(GET * 4_000)
            responses = await greedy.read_until_closed(3)
            assert responses.count(b"HTTP/1.1 200 ") == 17
            assert responses.partition(b"HTTP/1.1 429 ")[2].endswith(b"read a response before each further request\n")
            assert app.calls == 33

    run(check)


@pytest.mark.parametrize("end", ["close", "abort"])  # a client that stops sending, and one that resets the connection
@pytest.mark.parametrize("requests", [1, 2, 16])
def test_lost_connection_ends_its_requests_without_a_log_entry(
    requests: int, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        release = asyncio.Event()
        calls: list[str] = []

        async def wait(scope: Any, receive: Any, send: Any) -> None:
            calls.append("started")
            await release.wait()
            await respond(send, "late")
            calls.append((await receive())["type"])

        async with virtual_server(wait) as server:
            client = server.connect()
            client.send(GET * requests)
            await client.settle()
            getattr(client.transport, end)()
            await client.settle()
            release.set()
            await client.settle()
            assert calls == ["started", "http.disconnect"]
            assert not server.state.tasks

    run(check)
    assert caplog.records == []


def test_other_connections_are_served_between_the_slices_of_large_input() -> None:
    async def check() -> None:
        app = Echo()
        async with virtual_server(app) as server:
            flood, other = server.connect(), server.connect()
            flood.send(CHUNKED + b"d\r\n" + b"x" * 13 + b"\r\n" * 1)
            await flood.settle()
            protocol = flood.transport.protocol
            protocol.data_received(b"20\r\n" + b"x" * 32 + b"\r\n" + b"1\r\nx\r\n" * 1_900)
            other.send(GET)
            turns = 0
            while not other.transport.buffer and not other.received:
                await asyncio.sleep(0)
                turns += 1
            assert protocol.cycle.more_body
            assert turns < 10

    run(check)


@pytest.mark.parametrize(
    "request_", [b"", GET, GET * 3, GET[:9], post_head(20_000) + b"x" * 20_000, post_head(9), b"\0", UPGRADE]
)
def test_closed_connection_is_freed_without_a_garbage_collection(request_: bytes) -> None:
    """With reference cycles, frequent connections would cause garbage collections, which stop the event loop."""

    async def check() -> None:
        async with virtual_server(Echo()) as server:
            client = server.connect()
            protocol = weakref.ref(client.transport.protocol)
            client.send(request_)
            await client.settle()
            client.transport.abort()
            await client.settle()
            client.transport.set_protocol(None)
            assert protocol() is None

    gc.collect()
    gc.disable()
    try:
        run(check)
    finally:
        gc.enable()


@given(
    sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=6),
    cuts=st.lists(st.integers(1, 60_000), max_size=8),
    is_chunked=st.booleans(),
)
def test_requests_do_not_depend_on_how_their_data_is_split(
    sizes: list[int], cuts: list[int], *, is_chunked: bool
) -> None:
    async def check() -> None:
        async with virtual_server(Echo()) as server:
            client = server.connect()
            data = b"".join(
                CHUNKED + (b"%x\r\n%b\r\n" % (size, b"x" * size) if size else b"") + b"0\r\n\r\n"
                if is_chunked
                else post_head(size) + b"x" * size
                for size in sizes
            )
            for cut in [*cuts, len(data)]:
                client.send(data[:cut])
                data = data[cut:]
            await client.wait(2)
            responses = client.received.split(b"<")[1:]
            assert [int(response.split(b">")[0]) for response in responses] == sizes
            assert isinstance(server, VirtualServer)

    run(check)


@pytest.mark.parametrize("app", [Echo(), respond_early])
@pytest.mark.parametrize(
    "start",
    [b"0\r\na: ", b"0\r\n", b"1;", b'1;a="', b"1\r\nx\r\n1;"],
    ids=["trailer", "trailer name", "extension", "quoted extension", "second extension"],
)
def test_endless_framing_of_a_body_is_refused(start: bytes, app: Any) -> None:
    async def check() -> None:
        async with virtual_server(app) as server:
            client = server.connect()
            client.send(CHUNKED + start)
            for _ in range(10):
                client.send(b"x" * 8_192)
                await client.settle()
            response = await client.read_until_closed(5)
            assert b"HTTP/1.1 431 " in response
            assert response.endswith(b"at most 32 KiB\n")
            assert client.transport.protocol.parser is None

    run(check)


@pytest.mark.parametrize("piece_bytes", [7, 8_192, 200_000])
def test_body_of_many_chunks_and_some_trailers_is_read(piece_bytes: int) -> None:
    async def check() -> None:
        request_ = CHUNKED + b"9;a=b\r\n123456789\r\n" * 1_900 + b"0\r\na: " + b"x" * 20_000 + b"\r\n\r\n"
        async with virtual_server(Echo()) as server:
            client = server.connect()
            for at in range(0, len(request_), piece_bytes):
                client.send(request_[at : at + piece_bytes])
            await client.wait(0.2)  # the server stops reading while data waits for a later turn of the loop
            assert client.received.endswith(b"<17100>")

    run(check)


def test_server_reads_little_data_after_a_refusal() -> None:
    async def check() -> None:
        async with virtual_server(Echo()) as server:
            client = server.connect()
            client.send(CHUNKED + b"0\r\na: " + b"x" * 40 * 2**20)
            assert (await client.read_until_closed(1)).startswith(b"HTTP/1.1 431 ")
            assert client.unsent_bytes > 38 * 2**20

    run(check)


def test_few_of_many_requests_are_parsed_in_one_turn_and_addresses_take_turns() -> None:
    async def check() -> None:
        async with virtual_server(Echo(), limits=ConnectionLimits(total=200, per_address=200)) as server:
            flood = [server.connect() for _ in range(150)]
            other = server.connect("198.51.100.7")
            for client in (*flood, other):
                client.send(GET)
            parsed = [sum(client.transport.protocol.cycle is not None for client in flood)]
            while parsed[-1] < len(flood):
                await asyncio.sleep(0)
                parsed.append(sum(client.transport.protocol.cycle is not None for client in flood))
                if len(parsed) == 2:
                    assert other.transport.protocol.cycle is not None
            assert max(after - before for before, after in pairwise((0, *parsed))) <= 32

    run(check)


@pytest.mark.parametrize("request_", [GET, post_head(200_000) + b"x" * 200_000, b"GET / HTTP/1.1\r\nho", b"x\r\n\r\n"])
def test_idle_connection_keeps_no_received_data(request_: bytes) -> None:
    async def check() -> None:
        async with virtual_server(Echo()) as server:
            client = server.connect()
            client.send(request_)
            await client.wait(0.2)
            assert client.transport.protocol._slice == b""

    run(check)
