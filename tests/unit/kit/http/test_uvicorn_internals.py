"""Limits of the HTTP server, and the methods of uvicorn that they override."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from kit.http import uvicorn_internals
from kit.http.server import http_server
from kit.http.uvicorn_internals import BoundedHttpProtocol, BoundedWebSocketProtocol, ServerWithoutSignals
from stack.ports import HOST, free_ports


@pytest.fixture
async def port() -> AsyncIterator[int]:
    (port,) = free_ports(1)
    async with http_server(PlainTextResponse("served"), f"{HOST}:{port}"):
        yield port


async def answer(port: int, *pieces: bytes) -> bytes:
    """Send the pieces and return all that the server sends until it closes the connection."""
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


async def test_request_of_ordinary_size_is_served(port: int) -> None:
    assert (await answer(port, head(30_000), b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")


async def test_too_large_head_is_refused_whole_or_in_pieces(port: int) -> None:
    refused = b"HTTP/1.1 431 Request Header Fields Too Large"
    assert (await answer(port, head(33_000) + b"\r\n\r\n")).startswith(refused)
    assert (await answer(port, head(1_000), *[b"x" * 1_000] * 40)).startswith(refused)


async def test_too_long_url_is_refused(port: int) -> None:
    request = b"GET /" + b"x" * 33_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"
    assert (await answer(port, request)).startswith(b"HTTP/1.1 431 ")


async def test_incomplete_head_times_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_internals, "_HEAD_TIMEOUT_SECONDS", 0.1)
    assert (await answer(port, head(1))).startswith(b"HTTP/1.1 408 Request Timeout")
    assert (await answer(port)).startswith(b"HTTP/1.1 408 ")


async def test_client_that_reads_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_internals, "_WRITE_TIMEOUT_SECONDS", 0.1)
    ended = asyncio.Event()

    async def send_endless_body(scope: Scope, receive: Receive, send: Send) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65_536
                    await asyncio.sleep(0)
            finally:
                ended.set()

        await StreamingResponse(chunks())(scope, receive, send)

    (port,) = free_ports(1)
    async with http_server(send_endless_body, f"{HOST}:{port}"):
        _, writer = await asyncio.open_connection(HOST, port, limit=1)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(30):
            await ended.wait()
        writer.close()


async def test_trailers_are_dropped(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names, original = list[bytes](), HttpToolsProtocol.on_header

    def on_header(self: HttpToolsProtocol, name: bytes, value: bytes) -> None:
        names.append(name)
        original(self, name, value)

    monkeypatch.setattr(HttpToolsProtocol, "on_header", on_header)
    request = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    assert (await answer(port, request, b"1\r\nx\r\n0\r\nlate: x\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert names == [b"host", b"transfer-encoding", b"connection"]


async def test_head_time_out_starts_again_with_each_request(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_internals, "_HEAD_TIMEOUT_SECONDS", 1.0)
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    answers = await answer(port, request, request[:9])
    assert answers.startswith(b"HTTP/1.1 200 OK")
    assert answers.count(b"HTTP/1.1 408 ") == 1


async def test_non_http_data_is_answered_with_400(port: int) -> None:
    assert (await answer(port, b"\x16\x03\x01 no HTTP\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("protocol", [BoundedHttpProtocol, BoundedWebSocketProtocol, ServerWithoutSignals])
def test_overridden_methods_exist_in_uvicorn(protocol: type) -> None:
    overriding_classes = [cls for cls in protocol.__mro__ if cls.__module__ == uvicorn_internals.__name__]
    uvicorns = [cls for cls in protocol.__mro__ if cls.__module__.startswith("uvicorn.")]
    overridden = {
        name for cls in overriding_classes for name, value in vars(cls).items() if callable(value) and name[0] != "_"
    }
    assert overridden
    missing = {name for name in overridden if not any(name in vars(cls) for cls in uvicorns)}
    assert missing == set()


def test_attributes_that_the_protocols_read_exist_in_uvicorn() -> None:
    config = uvicorn.Config(PlainTextResponse("served"))
    protocol = HttpToolsProtocol(config, ServerState(), {})
    protocol.on_message_begin()
    missing = {name for name in ("url", "headers", "cycle", "transport", "loop") if not hasattr(protocol, name)}
    assert missing == set()
    assert "response_complete" in RequestResponseCycle.__init__.__code__.co_names
