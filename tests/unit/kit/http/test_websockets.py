"""Limits of WebSockets: handshake, frames, and output that the client does not read."""

import asyncio
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.http.connections import ADDRESS_FRAMES_AT_ONCE, SWEEP_SECONDS, Stage
from kit.http.uvicorn_internals.websocket_protocol import FRAMES_PER_SECOND
from tests.logs import own_warnings
from tests.unit.kit.http.virtual_server import Client, VirtualServer, run, virtual_server

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
TEXT, CONTINUATION, CLOSE, PING = 1, 0, 8, 9
HIGH_WATER = 64 * 1024


def frame(opcode: int, data: bytes = b"", *, fin: bool = True) -> bytes:
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes([(0x80 if fin else 0) | opcode]) + length + bytes(4) + data


def close_code(client: Client) -> tuple[int, str]:
    """Return the code and the reason of the last close frame."""
    at = client.received.rindex(b"\x88")
    (code,) = struct.unpack("!H", client.received[at + 2 : at + 4])
    return code, client.received[at + 4 :].decode()


class Listener:
    """App that accepts WebSockets and collects their messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.code = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            self.texts.append(message["text"])
        self.code = message["code"]


async def open_websocket(server: VirtualServer) -> Client:
    client = server.connect()
    client.send(UPGRADE + b"\r\n")
    await client.settle()
    assert client.received.startswith(b"HTTP/1.1 101 ")
    return client


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (UPGRADE + b"x: y\r\n" * 200, 431),
        (UPGRADE.replace(b"/ws", b"/" + b"x" * 9_000), 414),
        (UPGRADE + b"x: " + b"y" * 9_000 + b"\r\n", 431),
        (UPGRADE + b"content-length: 5\r\n", 400),
        (UPGRADE + b"transfer-encoding: chunked\r\n", 400),
        (UPGRADE.replace(b": 13", b": 12"), 400),
        (UPGRADE.replace(b"GET", b"POST"), 405),
    ],
)
def test_invalid_handshake_gets_an_error_response_and_is_closed(head: bytes, status: int) -> None:
    async def check() -> None:
        async with virtual_server(Listener()) as server:
            client = server.connect()
            client.send(head + b"\r\n")
            start, _, body = (await client.read_until_closed(5)).partition(b"\r\n\r\n")
            assert start.startswith(b"HTTP/1.1 %d " % status)
            assert b"\r\nconnection: close" in start.lower()
            assert b"\r\ncontent-type: text/plain; charset=utf-8" in start.lower()
            assert body.startswith((b"send ", b"open a WebSocket with "))
            assert len(server.connections) == 0

    run(check)


@pytest.mark.parametrize("fields", [b"content-length: 5\r\n", b"x: y\r\n" * 200])
def test_data_after_a_refused_handshake_is_dropped(fields: bytes) -> None:
    async def check() -> None:
        async with virtual_server(Listener()) as server:
            client = server.connect()
            client.transport.is_client_reading = False
            client.send(UPGRADE + fields + b"\r\n")
            await client.settle()
            client.send(UPGRADE + b"\r\n")
            client.transport.is_client_reading = True
            client.transport.flush()
            assert (await client.read_until_closed(35)).count(b"HTTP/1.1 ") == 1

    run(check)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ((b"AAAAAAAAAAAAAAAAAAAAAA==", b"abc"), "Sec-WebSocket-Key of 16 bytes in Base64"),
        ((b": 13", b": 8"), "send Sec-WebSocket-Version: 13"),
    ],
)
def test_response_to_a_refused_handshake_has_the_supported_version_and_quotes_nothing(
    changes: tuple[bytes, bytes], text: str
) -> None:
    async def check() -> None:
        async with virtual_server(Listener()) as server:
            client = server.connect()
            client.send(UPGRADE.replace(*changes) + b"\r\n")
            head, _, body = (await client.read_until_closed(5)).partition(b"\r\n\r\n")
            assert b"\r\nsec-websocket-version: 13" in head.lower()
            assert text in body.decode()
            assert "abc" not in body.decode()
            assert "Failed" not in body.decode()

    run(check)


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(3), 1002, "this is not a valid frame of WebSocket"),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007, "a text message must be valid UTF-8"),
        (b"\x81\xff" + struct.pack("!Q", 2**40) + bytes(4), 1009, "the message is too long: send a shorter one"),
    ],
)
def test_close_reason_of_a_protocol_error_is_our_message(data: bytes, code: int, reason: str) -> None:
    async def check() -> None:
        async with virtual_server(Listener()) as server:
            client = await open_websocket(server)
            client.send(data)
            await client.settle()
            assert close_code(client) == (code, reason)

    run(check)


def test_handshake_that_the_app_does_not_accept_times_out() -> None:
    async def wait_forever(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def check() -> None:
        async with virtual_server(wait_forever) as server:
            client = server.connect()
            client.send(UPGRADE + b"\r\n" + frame(PING))
            await client.read_until_closed(12)
            await client.settle()
            assert not server.state.tasks

    run(check)


def test_upgrade_during_an_earlier_response_is_refused_after_the_response() -> None:
    async def check() -> None:
        release = asyncio.Event()

        async def stream(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await release.wait()
            await send({"type": "http.response.body", "body": b"end"})

        async with virtual_server(stream) as server:
            client = server.connect()
            client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await client.settle()
            client.send(UPGRADE + b"\r\n")
            await client.settle()
            assert client.received.endswith(b"transfer-encoding: chunked\r\n\r\n")
            release.set()
            response, refusal = (await client.read_until_closed(3)).split(b"HTTP/1.1 ")[1:]
            assert response.endswith(b"\r\n3\r\nend\r\n0\r\n\r\n")
            assert refusal.startswith(b"400 ")
            assert not server.state.tasks

    run(check)


FLOODS = [
    frame(PING),
    frame(10),  # pong
    frame(TEXT, b'{"type":"ping"}'),
    frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 100 + frame(CONTINUATION),
    frame(TEXT, b"x" * 60_000),
]


@pytest.mark.parametrize("flood", FLOODS)
def test_client_that_sends_too_many_frames_is_slowed_down_and_then_disconnected(flood: bytes) -> None:
    async def check() -> None:
        app = Listener()
        async with virtual_server(app) as server:
            client = await open_websocket(server)
            client.send(flood * (4_000_000 // len(flood)))
            await client.wait(4)
            assert client.is_connected
            await client.read_until_closed(10)
            assert close_code(client)[0] == app.code == 1008
            assert close_code(client)[1].startswith("too many frames")

    run(check)


@pytest.mark.parametrize("flood", FLOODS)
def test_other_connections_are_served_during_a_flood(flood: bytes) -> None:
    async def check() -> None:
        app = Listener()
        async with virtual_server(app) as server:
            client, other = await open_websocket(server), server.connect()
            client.send(flood * (200_000 // len(flood)))
            other.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            for _ in range(5):  # turns of the loop
                await asyncio.sleep(0)
            assert other.received or other.transport.buffer
            pongs = len(client.transport.buffer) // 2
            assert pongs + len(app.texts) < 1_000

    run(check)


def test_other_connections_are_served_between_messages_that_arrive_together() -> None:
    async def check() -> None:
        async with virtual_server(app := Listener()) as server:
            client, other = await open_websocket(server), server.connect()
            client.send(frame(TEXT, b"x") * 100)
            other.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            for _ in range(8):  # turns of the loop
                await asyncio.sleep(0)
            assert other.received or other.transport.buffer
            assert len(app.texts) < 20
            await client.settle()
            assert len(app.texts) == 100

    run(check)


def test_frames_at_the_allowed_rate_keep_the_connection_open() -> None:
    async def check() -> None:
        async with virtual_server(app := Listener()) as server:
            client = await open_websocket(server)
            client.send(frame(TEXT, b"burst") * 400)
            for _ in range(15):
                client.send(frame(TEXT, b"x") * (FRAMES_PER_SECOND - 20))
                await client.wait(1)
            assert client.is_connected
            assert len(app.texts) == 400 + 15 * (FRAMES_PER_SECOND - 20)

    run(check)


def test_websockets_of_one_address_share_an_allowance_of_frames() -> None:
    async def check() -> None:
        async with virtual_server(app := Listener()) as server:
            flooding = [await open_websocket(server) for _ in range(40)]
            quiet = await open_websocket(server)
            elsewhere = server.connect("198.51.100.1")
            elsewhere.send(UPGRADE + b"\r\n")
            await elsewhere.settle()
            for client in flooding:
                client.send(frame(TEXT, b"x") * 2 * FRAMES_PER_SECOND)
            await quiet.wait(1)
            assert len(app.texts) < 2 * ADDRESS_FRAMES_AT_ONCE
            quiet.send(frame(TEXT, b"quiet"))
            elsewhere.send(frame(TEXT, b"elsewhere"))
            await elsewhere.settle()
            assert "elsewhere" in app.texts
            await quiet.wait(10)
            assert "quiet" in app.texts
            assert len(app.texts) == 40 * 2 * FRAMES_PER_SECOND + 2
            assert all(client.is_connected for client in flooding), "only a WebSocket's own rate closes it"

    run(check)


def test_pongs_that_the_client_does_not_read_are_bounded() -> None:
    async def check() -> None:
        async with virtual_server(Listener()) as server:
            client = await open_websocket(server)
            client.transport.is_client_reading = False
            for _ in range(50):
                client.send(frame(PING, b"x" * 125) * 1_000)
                await client.wait(1)
            assert client.transport.most_buffered < HIGH_WATER + 2_048
            assert not client.is_connected

    run(check)


def test_messages_that_a_slow_client_does_not_read_are_bounded() -> None:
    async def send_to_all(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})

        async def subscription() -> None:
            while True:
                await send({"type": "websocket.send", "text": "x" * 50_000})

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(subscription()) for _ in range(50)]
            while (await receive())["type"] != "websocket.disconnect":
                pass
            for task in running:
                task.cancel()

    async def check() -> None:
        async with virtual_server(send_to_all) as server:
            client = server.connect()
            client.transport.is_client_reading = False
            client.send(UPGRADE + b"\r\n")
            for _ in range(5):
                await client.wait(1)
                client.transport.is_client_reading = True
                client.transport.flush()
                client.transport.is_client_reading = False
            assert client.transport.most_buffered < HIGH_WATER + 2 * 50_100

    run(check)


def test_close_frame_that_the_client_does_not_answer_ends_the_connection() -> None:
    async def close(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4400, "reason": "é" * 200})

    async def check() -> None:
        async with virtual_server(close) as server:
            client = await open_websocket(server)
            for _ in range(6):
                client.send(frame(PING))
                await client.wait(1)
            assert not client.is_connected
            assert b"\x11\x30" + ("é" * 60).encode() in client.received  # code 4400, and as much of the reason as fits

    run(check)


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_close_by_the_app_during_a_flood_reaches_the_client_and_ends_the_connection(seconds: float) -> None:
    async def close(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(seconds)
        await send({"type": "websocket.close", "code": 4408, "reason": "late"})

    async def check() -> None:
        async with virtual_server(close) as server:
            client = await open_websocket(server)
            client.send(frame(PING) * 1_500 + frame(CLOSE, b"\x11\x38"))  # at the allowed rate it takes five seconds
            await client.wait(seconds)
            await client.settle()
            assert b"\x11\x38late" in client.received
            assert client.transport.is_output_ended
            assert client.transport.protocol.stage()[0] is Stage.LINGERING
            await client.wait(3 * SWEEP_SECONDS)
            assert not client.is_connected
            assert not server.state.tasks

    run(check)


@given(
    sizes=st.lists(st.integers(0, 5_000), min_size=1, max_size=20),
    fragments=st.integers(1, 5),
    cuts=st.lists(st.integers(1, 4_000), max_size=20),
)
def test_messages_do_not_depend_on_how_their_data_is_split(sizes: list[int], fragments: int, cuts: list[int]) -> None:
    texts = [chr(97 + number) * size for number, size in enumerate(sizes)]

    def message(text: str) -> bytes:
        step = len(text) // fragments + 1
        parts = [text[start : start + step].encode() for start in range(0, max(1, len(text)), step)]
        return b"".join(
            frame(CONTINUATION if number else TEXT, part, fin=number == len(parts) - 1)
            for number, part in enumerate(parts)
        )

    async def check() -> None:
        app = Listener()
        async with virtual_server(app) as server:
            client = await open_websocket(server)
            data = b"".join(map(message, texts)) + frame(CLOSE, b"\x03\xe8")
            for cut in [*cuts, len(data)]:
                client.send(data[:cut])
                data = data[cut:]
            await client.wait(5)
            assert app.texts == texts
            assert app.code == 1000
            assert not client.is_connected

    run(check)


@pytest.mark.parametrize(
    "message",
    [
        frame(TEXT, b"\xff"),
        frame(TEXT, "…".encode()[:2]),
        frame(TEXT, b"valid", fin=False) + frame(CONTINUATION, b"\xff"),
        frame(TEXT, b"\xff") + frame(TEXT, b"later") + frame(PING),
    ],
)
def test_text_with_invalid_utf8_closes_the_connection_with_1007_without_an_error_log(
    message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        app = Listener()
        async with virtual_server(app) as server:
            client = await open_websocket(server)
            client.send(message)
            await client.wait(15)
            assert close_code(client) == (1007, "a text message must be valid UTF-8")
            assert not client.is_connected
            assert (app.texts, app.code) == ([], 1007)

    run(check)
    assert own_warnings([], caplog.records) == []


def test_character_that_is_split_between_frames_is_read() -> None:
    async def check() -> None:
        app = Listener()
        async with virtual_server(app) as server:
            client = await open_websocket(server)
            text = "…".encode()
            client.send(frame(TEXT, text[:1], fin=False) + frame(CONTINUATION, text[1:]))
            await client.settle()
            assert app.texts == ["…"]

    run(check)
