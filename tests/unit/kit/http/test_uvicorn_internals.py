"""Limits of the HTTP server, and the parts of uvicorn that the code of these limits overrides or uses."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from kit.http import uvicorn_internals
from kit.http.server import http_server
from kit.http.uvicorn_internals.http_protocol import BoundedHttpProtocol
from kit.http.uvicorn_internals.server import ServerWithoutSignals
from kit.http.uvicorn_internals.websocket_protocol import BoundedWebSocketProtocol
from stack.ports import HOST, free_ports


@pytest.fixture
async def port() -> AsyncIterator[int]:
    (port,) = free_ports(1)
    async with http_server(PlainTextResponse("served"), f"{HOST}:{port}"):
        yield port


async def exchange(port: int, *pieces: bytes) -> bytes:
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
    assert (await exchange(port, head(30_000), b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")


async def test_too_large_head_is_refused_in_one_piece_and_in_many(port: int) -> None:
    refused = b"HTTP/1.1 431 Request Header Fields Too Large"
    assert (await exchange(port, head(33_000) + b"\r\n\r\n")).startswith(refused)
    assert (await exchange(port, head(1_000), *[b"x" * 1_000] * 40)).startswith(refused)


async def test_too_long_url_is_refused(port: int) -> None:
    request = b"GET /" + b"x" * 33_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"
    assert (await exchange(port, request)).startswith(b"HTTP/1.1 431 ")


async def test_trailers_are_dropped() -> None:
    names: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        names.extend(name for name, _ in scope["headers"])
        await PlainTextResponse("served")(scope, receive, send)

    (port,) = free_ports(1)
    request = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    async with http_server(app, f"{HOST}:{port}"):
        assert (await exchange(port, request, b"1\r\nx\r\n0\r\nlate: x\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert names == [b"host", b"transfer-encoding", b"connection"]


async def test_data_that_is_not_http_gets_a_400_response(port: int) -> None:
    assert (await exchange(port, b"\x16\x03\x01 no HTTP\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


OWN_METHODS = {"stage", "end", "on_chunk_header"}
"""Methods that uvicorn does not have: two for the limits of connections, and a callback of httptools."""


@pytest.mark.parametrize("protocol", [BoundedHttpProtocol, BoundedWebSocketProtocol, ServerWithoutSignals])
def test_overridden_methods_exist_in_uvicorn(protocol: type) -> None:
    overriding_classes = [cls for cls in protocol.__mro__ if cls.__module__.startswith(uvicorn_internals.__name__)]
    uvicorns = [cls for cls in protocol.__mro__ if cls.__module__.startswith("uvicorn.")]
    overridden = {
        name for cls in overriding_classes for name, value in vars(cls).items() if callable(value) and name[0] != "_"
    }
    assert overridden
    missing = {name for name in overridden - OWN_METHODS if not any(name in vars(cls) for cls in uvicorns)}
    assert missing == set()


def missing_attributes(instance: object, names: str) -> set[str]:
    return {name for name in names.split() if not hasattr(instance, name)}


async def test_attributes_that_the_http_protocol_uses_exist_in_uvicorn() -> None:
    protocol = HttpToolsProtocol(uvicorn.Config(PlainTextResponse("served")), ServerState(), {})
    protocol.on_message_begin()
    names = "url headers expect_100_continue cycle transport loop flow parser pipeline app server_state"
    methods = "ws_protocol_class _should_upgrade _should_upgrade_to_ws _start_asgi_task"
    assert missing_attributes(protocol, f"{names} {methods}") == set()
    cycle = set(RequestResponseCycle.__init__.__code__.co_names)
    assert cycle >= {"response_complete", "response_started", "disconnected", "message_event", "more_body"}
    assert cycle >= {"on_response", "waiting_for_100_continue"}
    assert missing_attributes(FlowControl(asyncio.Transport()), "read_paused write_paused") == set()


async def test_attributes_that_the_websocket_protocol_uses_exist_in_uvicorn_and_websockets() -> None:
    config = uvicorn.Config(PlainTextResponse("served"))
    config.load()
    protocol = WebSocketsSansIOProtocol(config, ServerState(), {}, asyncio.SelectorEventLoop())
    names = "transport loop queue conn writable read_paused disconnected handshake_initiated handshake_complete"
    assert missing_attributes(protocol, f"{names} close_sent close_timeout stop_keepalive handle_events") == set()
    assert missing_attributes(protocol.conn, "events parser_exc close_sent fail data_to_send receive_data") == set()
    protocol.loop.close()
