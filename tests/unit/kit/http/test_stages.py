"""Each connection times out or has a running task, for arbitrary input and arbitrary apps."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.kit.http.virtual_server import Client, VirtualServer, run, virtual_server

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
PING = b"\x89\x80\0\0\0\0"

PIECES = [
    GET,
    GET.replace(b"1.1", b"1.0"),
    GET * 3,
    GET * 40,
    GET[:9],
    b"\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n",
    b"123456789",
    CHUNKED,
    b"1\r\nx\r\n",
    b"1\r\nx\r\n" * 3_000,
    b"0\r\n\r\n",
    b"0\r\na: b\r\n",
    b"a:\r\n" * 200,
    b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    UPGRADE + b"\r\n",
    UPGRADE + b"content-length: 5\r\n\r\n",
    UPGRADE + b"transfer-encoding: chunked\r\n\r\n",
    UPGRADE + b"x: y\r\n" * 125 + b"\r\n",
    UPGRADE.replace(b"/ws", b"/" + b"x" * 9_000) + b"\r\n",
    UPGRADE.replace(b"websocket\r", b"h2c\r") + b"\r\n",
    UPGRADE.replace(b"websocket\r", b"h2c\r") + b"content-length: 9\r\n\r\n",
    (UPGRADE.replace(b"websocket\r", b"h2c\r") + b"\r\n") * 20,
    UPGRADE.replace(b"websocket\r", b"websocket, h2c\r") + b"transfer-encoding: chunked\r\n\r\n",
    GET.replace(b"host: x\r\n", b""),
    b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    UPGRADE.replace(b"13", b"12") + b"\r\n",
    PING,
    PING * 2_000,
    b"\x01\x80\0\0\0\0",  # first fragment of a text
    b"\x00\x80\0\0\0\0" * 300,  # empty continuations
    b"\x81\x81\0\0\0\0a",  # a text
    b"\x81\x81\0\0\0\0a" * 300,
    b"\x81\x81\0\0\0\0\xff",  # not UTF-8
    b"\x88\x80\0\0\0\0",  # a close frame
    b"\x82\xff\0\0\0\0\x7f\0\0\0",  # part of a frame's head
    b"\x16\x03\x01\0",
    b"x" * 40_000,
]
DRIPS = [b"", b"x", b"\r\n", b"a:\r\n", b"1\r\nx\r\n", PING, b"\x8a\x80\0\0\0\0", b"\x81\x81\0\0\0\0a"]

LONG_BODY = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n"
REQUESTS = [GET, LONG_BODY, CHUNKED, UPGRADE + b"\r\n"]

client_steps = st.one_of(
    st.sampled_from(PIECES),
    st.sampled_from(REQUESTS),
    st.sampled_from([0.0, 0.5, 4.0, 7.0]),
    st.sampled_from(["read", "stop reading"]),
    st.binary(max_size=20),
)
app_scripts = st.one_of(
    st.sampled_from(
        [
            ["start", "end"],  # an early response
            ["receive", "start", "body", "end"],
            ["start", "large body", "large body", "pause", "end"],
            ["receive", "receive", "receive"],
            ["receive", "accept", "receive", "body", "receive", "close"],
            ["receive", "accept", "large body", "large body", "receive", "receive"],
            ["receive", "accept", "close"],
            ["receive", "pause", "close"],
            ["receive", "start", "end"],
        ]
    ),
    st.lists(
        st.sampled_from(["receive", "start", "accept", "body", "large body", "end", "close", "pause", "fail"]),
        max_size=8,
    ),
)


class ScriptedApp:
    """App that runs its scripts in turn, one per call. It has no time-outs for receiving and sending."""

    def __init__(self, scripts: list[list[str]]) -> None:
        self._scripts = scripts
        self._calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        script = self._scripts[self._calls % len(self._scripts)]
        self._calls += 1
        is_websocket = scope["type"] == "websocket"
        expects_body = True
        for step in script:
            match step:
                case "receive" if is_websocket or expects_body:
                    expects_body = (await receive()).get("more_body", False)
                case "pause" | "receive":  # after the body, an app must not wait for the client's disconnect only
                    await asyncio.sleep(2)
                case "fail":
                    raise _AppError
                case "accept" | "close":
                    await send({"type": f"websocket.{step}"})
                case "start":
                    prefix = "websocket.http" if is_websocket else "http"
                    await send({"type": f"{prefix}.response.start", "status": 200, "headers": []})
                case _ if is_websocket:
                    await send({"type": "websocket.send", "text": "x" * (90_000 if "large" in step else 9)})
                case _:
                    body = b"x" * (90_000 if "large" in step else 9)
                    await send({"type": "http.response.body", "body": body, "more_body": step != "end"})


class _AppError(Exception):
    pass


def assert_timed(server: VirtualServer, clients: list[Client]) -> None:
    """Assert that each connection without a time-out has a running task."""
    without = [
        client for client in clients if client.is_connected and client.transport.protocol.stage()[0].seconds is None
    ]
    assert len(without) <= len([task for task in server.state.tasks if not task.done()])


@settings(max_examples=200)
@given(
    steps=st.lists(client_steps, max_size=8),
    first=st.sampled_from(REQUESTS),
    scripts=st.lists(app_scripts, min_size=1, max_size=3),
    drip=st.sampled_from(DRIPS),
    is_split=st.booleans(),
    is_reading=st.booleans(),
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_connection_without_progress_ends(
    first: bytes,
    steps: list[bytes | float | str],
    scripts: list[list[str]],
    drip: bytes,
    *,
    is_split: bool,
    is_reading: bool,
) -> None:
    async def check() -> None:
        async with virtual_server(ScriptedApp(scripts)) as server:
            client = server.connect()
            client.transport.is_client_reading = is_reading
            for step in [first, *steps]:
                match step:
                    case float():
                        await client.wait(step)
                    case "read" | "stop reading":
                        client.transport.is_client_reading = step == "read"
                        client.transport.flush()
                    case bytes():
                        half = len(step) // 2 if is_split else len(step)
                        client.send(step[:half])
                        await client.settle()
                        client.send(step[half:])
                await client.settle()
                assert_timed(server, [client])
            # From here on the client sends only the same few bytes, once a second.
            for _ in range(240):
                if not client.is_connected:
                    break
                client.send(drip)
                await client.wait(1, until_closed=True)
                assert_timed(server, [client])
            assert not client.is_connected, client.transport.protocol.stage()
            assert len(server.connections) == 0

    run(check)
