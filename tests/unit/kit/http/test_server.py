"""What is bounded of a request before its body."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kit.http import server as http
from kit.http.server import http_server
from stack.ports import HOST, free_ports


@pytest.fixture
async def port() -> AsyncIterator[int]:
    (port,) = free_ports(1)
    async with http_server(PlainTextResponse("served"), f"{HOST}:{port}"):
        yield port


async def answer(port: int, *pieces: bytes) -> bytes:
    """All that comes back for these pieces, until the server ends the connection."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


def head(padding: int) -> bytes:
    return b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\npadding: " + b"x" * padding


async def test_a_request_of_ordinary_size_is_served(port: int) -> None:
    assert (await answer(port, head(30_000), b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")


async def test_a_head_that_is_too_large_is_refused_whole_or_in_pieces(port: int) -> None:
    refused = b"HTTP/1.1 431 Request Header Fields Too Large"
    assert (await answer(port, head(33_000) + b"\r\n\r\n")).startswith(refused)
    assert (await answer(port, head(1_000), *[b"x" * 1_000] * 40)).startswith(refused)


async def test_so_is_an_address_that_is_too_long(port: int) -> None:
    request = b"GET /" + b"x" * 33_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"
    assert (await answer(port, request)).startswith(b"HTTP/1.1 431 ")


async def test_who_never_ends_the_head_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_HEAD_TIMEOUT_SECONDS", 0.1)
    assert (await answer(port, head(1))).startswith(b"HTTP/1.1 408 Request Timeout")
    assert (await answer(port)).startswith(b"HTTP/1.1 408 ")


async def test_who_reads_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_WRITE_TIMEOUT_SECONDS", 0.1)
    ended = asyncio.Event()

    async def pours(scope: Scope, receive: Receive, send: Send) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65_536
                    await asyncio.sleep(0)
            finally:
                ended.set()

        await StreamingResponse(chunks())(scope, receive, send)

    (port,) = free_ports(1)
    async with http_server(pours, f"{HOST}:{port}"):
        _, writer = await asyncio.open_connection(HOST, port, limit=1)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(30):
            await ended.wait()
        writer.close()


async def test_trailers_are_not_kept(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, keep = list[bytes](), HttpToolsProtocol.on_header

    def on_header(self: HttpToolsProtocol, name: bytes, value: bytes) -> None:
        kept.append(name)
        keep(self, name, value)

    monkeypatch.setattr(HttpToolsProtocol, "on_header", on_header)
    request = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    assert (await answer(port, request, b"1\r\nx\r\n0\r\nlate: x\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert kept == [b"host", b"transfer-encoding", b"connection"]


async def test_each_request_of_a_connection_has_time_of_its_own(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_HEAD_TIMEOUT_SECONDS", 1.0)
    whole = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    answers = await answer(port, whole, whole[:9])
    assert answers.startswith(b"HTTP/1.1 200 OK")
    assert answers.count(b"HTTP/1.1 408 ") == 1


async def test_what_is_no_http_is_told_so(port: int) -> None:
    assert (await answer(port, b"\x16\x03\x01 no HTTP\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
