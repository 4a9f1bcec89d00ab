"""Malformed data behind complete requests: the requests are executed and answered, and then the data is refused."""

import asyncio
import gc
import re
import weakref
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit.http.connections import DISCARDED_BYTES, Stage
from tests.unit.kit.http.virtual_server import Client, run, virtual_server

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
CHUNKED = b"POST /refused HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"

MALFORMED = [
    (b"x", 400),
    (b"\0", 400),
    (b"hello\r\n\r\n", 400),
    (b"GET /refused HTTP/2.0\r\nhost: x\r\n\r\n", 505),
    (b"GET /refused#a HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (b"GET /refused HTTP/1.1\r\n\r\n", 400),
    (b"GET /refused HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", 400),
    (b"GET /refused HTTP/1.1\r\nhost: x\r\na: " + b"b" * 33_000 + b"\r\n\r\n", 431),
    (b"GET /refused HTTP/1.1\r\n" + b"a:\r\n" * 129 + b"\r\n", 431),
    (b"POST /refused HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    (b"POST /refused HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 501),
    (b"CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\n", 501),
    (UPGRADE.replace(b"1.1", b"2.0"), 505),
    (CHUNKED + b"zz\r\n", 400),
    (CHUNKED + b"1\r\nx\r\nzz\r\n", 400),
    (CHUNKED + b"1\r\nx\r\n" * 2_001, 413),
]
"""Data that is refused, and the status of the refusal. A request of these is incomplete, or refused for its head."""


class PathApp:
    """App that responds as the path says: `/<number>/<mode>/<seconds>`. It records the paths of complete requests."""

    def __init__(self) -> None:
        self.executed: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        number, mode, seconds = path[1:].split("/") if path.count("/") == 3 else ("", "read", "0")
        size, more = 0, mode != "early"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size, more = size + len(message["body"]), message["more_body"]
        self.executed.append(path)
        await asyncio.sleep(float(seconds))
        text = f"<{number}: {size}>".encode()
        if mode == "stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": text, "more_body": True})
            await asyncio.sleep(float(seconds))
            await send({"type": "http.response.body", "body": text})
        else:
            headers = [(b"content-length", b"%d" % len(text))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": text})


class HeldApp:
    """App that sends no response before the test sets `release`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ends: list[str] = []
        self.release = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append(scope["type"])
        await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        self.ends.append((await receive())["type"])


async def stream_events(scope: Any, receive: Any, send: Any) -> None:
    """Send an event each second until the client disconnects."""
    assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    disconnect = asyncio.create_task(receive())
    while not disconnect.done():
        await send({"type": "http.response.body", "body": b"event\n", "more_body": True})
        await asyncio.wait([disconnect], timeout=1)


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def without_continue(received: bytes) -> bytes:
    """Remove the interim responses, which depend on when the body arrives."""
    return received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")


@st.composite
def valid_requests(draw: st.DrawFn) -> list[bytes]:
    requests = []
    for number in range(draw(st.integers(1, 5))):
        mode, seconds = draw(st.sampled_from(["read", "early", "stream"])), draw(st.sampled_from([0, 0.02, 0.4, 2]))
        body = b"x" * draw(st.sampled_from([0, 1, 9, 9_000]))
        method, framed = draw(
            st.sampled_from(
                [
                    (b"GET", b"\r\n"),
                    (b"HEAD", b"\r\n"),
                    (b"POST", b"content-length: %d\r\n\r\n%b" % (len(body), body)),
                    (b"POST", b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)),
                    (b"POST", b"transfer-encoding: chunked\r\n\r\n5\r\nchunk\r\n0\r\n\r\n"),
                    (b"POST", b"transfer-encoding: chunked\r\n\r\n5;a=b\r\nchunk\r\n0\r\na: b\r\n\r\n"),
                    (b"GET", b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"),
                ]
            )
        )
        requests.append(
            b"%b /%d/%b/%b HTTP/1.1\r\nhost: x\r\n" % (method, number, mode.encode(), b"%g" % seconds) + framed
        )
    return requests


async def respond_alone(request: bytes) -> bytes:
    """Return the response to a request that nothing follows."""
    async with virtual_server(PathApp()) as server:
        client = server.connect()
        client.send(request)
        await client.wait(4.5)
        return client.received


@given(
    requests=valid_requests(),
    malformed=st.sampled_from(MALFORMED),
    rest=st.sampled_from([b"", GET, b"x" * 9_000]),
    cuts=st.lists(st.tuples(st.integers(1, 600), st.sampled_from([0, 0, 0.05, 0.6])), max_size=6),
)
@example([b"POST /0/read/2 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx"], (b"x", 400), b"", [])
@example([b"GET /0/read/2 HTTP/1.1\r\nhost: x\r\n\r\n"] * 3, (CHUNKED + b"zz\r\n", 400), GET, [])
def test_complete_requests_are_answered_and_then_malformed_data_is_refused_once(
    requests: list[bytes], malformed: tuple[bytes, int], rest: bytes, cuts: list[tuple[int, float]]
) -> None:
    async def check() -> None:
        expected = without_continue(b"".join([await respond_alone(request) for request in requests]))
        app = PathApp()
        async with virtual_server(app) as server:
            client = server.connect()
            data = b"".join(requests) + malformed[0] + rest
            for size, seconds in cuts:
                client.send(data[:size])
                data = data[size:]
                await client.wait(seconds)
            client.send(data)
            received = without_continue(await client.read_until_closed(40))
            assert received[: len(expected)] == expected
            assert statuses(received[len(expected) :]) == [malformed[1]]
            assert received[len(expected) :].startswith(b"HTTP/1.1 ")
            assert app.executed == [request.split(b" ")[1].decode() for request in requests]
            assert (len(server.connections), len(server.state.tasks)) == (0, 0)

    run(check)


@pytest.mark.parametrize("ahead", [1, 3, 16])
def test_request_that_runs_when_malformed_data_arrives_is_answered_first(ahead: int) -> None:
    async def check() -> None:
        app = HeldApp()
        async with virtual_server(app) as server:
            client = server.connect()
            client.send(GET * ahead)
            await client.settle()
            client.send(b"x" + GET)
            await client.wait(30)
            assert client.received == b""
            assert client.transport.protocol.stage()[0] is Stage.APP
            app.release.set()
            await client.settle()
            assert client.transport.protocol.stage()[0] is Stage.LINGERING
            assert statuses(await client.read_until_closed(3)) == [200] * ahead + [400]
            assert len(app.calls) == ahead

    run(check)


def test_request_with_a_malformed_body_behind_a_running_request_is_refused_without_being_executed() -> None:
    async def check() -> None:
        app = HeldApp()
        async with virtual_server(app) as server:
            client = server.connect()
            client.send(GET + GET + CHUNKED + b"zz\r\n")
            await client.settle()
            app.release.set()
            assert statuses(await client.read_until_closed(3)) == [200, 200, 400]
            assert len(app.calls) == 2

    run(check)


def test_websocket_behind_a_running_request_is_refused_after_the_response() -> None:
    async def check() -> None:
        app = HeldApp()
        async with virtual_server(app) as server:
            client = server.connect()
            client.send(GET + UPGRADE + GET)
            await client.settle()
            app.release.set()
            received = await client.read_until_closed(3)
            assert statuses(received) == [200, 400]
            assert b"open the WebSocket on another connection" in received
            assert app.calls == ["http"]

    run(check)


def test_nothing_follows_the_response_to_a_request_with_connection_close() -> None:
    async def check() -> None:
        async with virtual_server(PathApp()) as server:
            client = server.connect()
            client.send(GET.replace(b"host", b"connection: close\r\nhost") + b"x")
            assert statuses(await client.read_until_closed(3)) == [200]

    run(check)


def test_failure_of_the_app_behind_which_data_is_malformed_gets_a_500_response() -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError

    async def check() -> None:
        async with virtual_server(fail) as server:
            client = server.connect()
            client.send(GET + b"x")
            assert statuses(await client.read_until_closed(3)) == [500]

    run(check)


async def start_stream(client: Client) -> None:
    client.send(GET + b"x")
    await client.wait(20)
    assert client.received.count(b"event") >= 19
    assert statuses(client.received) == [200]


def test_stream_goes_on_behind_which_data_is_malformed_until_the_client_disconnects() -> None:
    async def check() -> None:
        async with virtual_server(stream_events) as server:
            client = server.connect()
            await start_stream(client)
            client.transport.close()
            await client.wait(2)
            assert (len(server.connections), len(server.state.tasks)) == (0, 0)

    run(check)


def test_client_that_keeps_sending_behind_malformed_data_is_disconnected() -> None:
    async def check() -> None:
        async with virtual_server(stream_events) as server:
            client = server.connect()
            await start_stream(client)
            client.send(b"x" * 2 * DISCARDED_BYTES)
            await client.read_until_closed(3)
            assert client.unsent_bytes > DISCARDED_BYTES // 2
            await client.wait(2)
            assert (len(server.connections), len(server.state.tasks)) == (0, 0)

    run(check)


def test_client_that_disconnects_before_the_response_ends_its_requests() -> None:
    async def check() -> None:
        app = HeldApp()
        async with virtual_server(app) as server:
            client = server.connect()
            client.send(GET * 3 + b"x")
            await client.settle()
            client.transport.abort()
            await client.settle()
            app.release.set()
            await client.settle()
            assert (app.calls, app.ends) == (["http"], ["http.disconnect"])
            assert not server.state.tasks

    run(check)


def test_body_that_is_refused_while_its_client_expects_100_continue_causes_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def check() -> None:
        async with virtual_server(PathApp()) as server:
            client = server.connect()
            client.send(CHUNKED.replace(b"host", b"expect: 100-continue\r\nhost") + b"zz\r\n")
            assert statuses(await client.read_until_closed(3)) == [400]

    run(check)
    assert caplog.records == []


@pytest.mark.parametrize("data", [GET + b"x", GET * 3 + b"x", GET * 3 + CHUNKED + b"zz\r\n", GET + UPGRADE])
@pytest.mark.parametrize("is_answered", [True, False])
def test_connection_with_a_refusal_is_freed_without_a_garbage_collection(data: bytes, *, is_answered: bool) -> None:
    async def check() -> None:
        app = HeldApp()
        async with virtual_server(app) as server:
            client = server.connect()
            protocol = weakref.ref(client.transport.protocol)
            client.send(data)
            await client.settle()
            if is_answered:
                app.release.set()
                await client.settle()
            client.transport.abort()
            app.release.set()
            await client.settle()
            client.transport.set_protocol(None)
            assert protocol() is None

    gc.collect()
    gc.disable()
    try:
        run(check)
    finally:
        gc.enable()
