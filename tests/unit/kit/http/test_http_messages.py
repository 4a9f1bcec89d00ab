"""HTTP/1.1 requests as in RFC 9110 and RFC 9112: upgrades, `Host`, transfer codings, and the end of each request."""

from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.http.addresses import is_valid_host
from kit.http.uvicorn_internals.parser_messages import describe_parser_error
from tests.unit.kit.http.virtual_server import run, virtual_server

WEBSOCKET = (
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
SECOND = b"GET /second HTTP/1.1\r\nhost: x\r\n\r\n"


class Recorder:
    """App that records each scope, and returns the method, path and body of a request."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        text = f"<{scope['method']} {scope['path']} {body.decode()}>".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
        await send({"type": "http.response.body", "body": text})


async def exchange(app: Any, *pieces: bytes) -> bytes:
    """Send pieces of data over one connection; return all data that the server sends."""
    async with virtual_server(app) as server:
        client = server.connect()
        for piece in pieces:
            client.send(piece)
            await client.settle()
        return bytes(client.received)


def responses(*pieces: bytes) -> list[str]:
    """Return the texts of all responses to the pieces."""
    received = b""

    async def check() -> None:
        nonlocal received
        received = await exchange(Recorder(), *pieces)

    run(check)
    return [text.partition(b">")[0].decode() for text in received.split(b"<")[1:]]


def status(*pieces: bytes) -> bytes:
    """Return the status of the first response to the pieces."""
    received = b""

    async def check() -> None:
        nonlocal received
        received = await exchange(Recorder(), *pieces)

    run(check)
    return received.partition(b" ")[2][:3]


def with_body(fields: bytes, body: bytes = b"the body") -> bytes:
    return b"POST / HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (fields, len(body), body)


@pytest.mark.parametrize(
    "fields",
    [
        H2C,
        H2C.replace(b"h2c", b"H2C"),
        H2C.replace(b"h2c", b"TLS/1.2, h2c"),
        H2C + b"upgrade: websocket\r\n",
        WEBSOCKET.replace(b"websocket\r", b"websocket, h2c\r"),
    ],
)
def test_body_of_a_request_with_an_ignored_upgrade_is_read(fields: bytes) -> None:
    assert responses(with_body(fields) + SECOND) == ["POST / the body", "GET /second "]


def test_chunked_body_of_a_request_with_an_ignored_upgrade_is_read() -> None:
    request = b"POST / HTTP/1.1\r\nhost: x\r\n" + H2C + b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    assert responses(request + SECOND) == ["POST / body", "GET /second "]


@given(cuts=st.lists(st.integers(1, 400), max_size=12))
def test_requests_with_ignored_upgrades_do_not_depend_on_how_their_data_is_split(cuts: list[int]) -> None:
    data = with_body(H2C) + SECOND + with_body(H2C, b"") + with_body(H2C, b"x" * 9_000) + SECOND
    pieces = []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    expected = ["POST / the body", "GET /second ", "POST / ", "POST / " + "x" * 9_000, "GET /second "]
    assert responses(*pieces, data) == expected


@pytest.mark.parametrize(
    "fields",
    [
        WEBSOCKET.replace(b"websocket\r", b"websocket, h2c\r"),
        WEBSOCKET + b"upgrade: h2c\r\n",
        WEBSOCKET + b"upgrade: websocket\r\n",
        H2C,
    ],
)
def test_get_request_with_several_or_other_upgrades_is_served(fields: bytes) -> None:
    assert responses(b"GET /a HTTP/1.1\r\nhost: x\r\n" + fields + b"\r\n", SECOND) == ["GET /a ", "GET /second "]


def test_websocket_upgrade_reaches_the_app_as_a_websocket() -> None:
    app = Recorder()

    async def check() -> None:
        await exchange(
            app, b"GET /a HTTP/1.1\r\nhost: x\r\n" + WEBSOCKET.replace(b"websocket\r", b"WebSocket\r") + b"\r\n"
        )

    run(check)
    assert [scope["type"] for scope in app.scopes] == ["websocket"]


def test_upgrade_of_an_http_1_0_request_is_ignored() -> None:
    assert responses(b"GET /a HTTP/1.0\r\n" + WEBSOCKET + b"\r\n") == ["GET /a "]


def test_fields_of_a_request_with_an_ignored_upgrade_are_kept() -> None:
    app = Recorder()

    async def check() -> None:
        await exchange(app, b"GET /a?b=%20c HTTP/1.1\r\nHost: x\r\nA:  b\tc \r\n" + H2C + b"a: d\r\n\r\n")

    run(check)
    (scope,) = app.scopes
    assert (scope["path"], scope["query_string"], scope["http_version"]) == ("/a", b"b=%20c", "1.1")
    assert [field for field in scope["headers"] if field[0] in {b"host", b"a"}] == [
        (b"host", b"x"),
        (b"a", b"b\tc"),
        (b"a", b"d"),
    ]


def test_white_space_around_a_value_is_no_part_of_it() -> None:
    app = Recorder()

    async def check() -> None:
        await exchange(app, b"GET / HTTP/1.1\r\nhost: \t x \t\r\na:\t b c \t \r\nd:  \r\n\r\n")

    run(check)
    assert app.scopes[0]["headers"] == [(b"host", b"x"), (b"a", b"b c"), (b"d", b"")]


def test_limits_of_a_head_apply_to_a_request_with_an_ignored_upgrade() -> None:
    many = b"GET / HTTP/1.1\r\nhost: x\r\n" + H2C + b"a: b\r\n" * 125 + b"\r\n"
    long = b"GET / HTTP/1.1\r\nhost: x\r\n" + H2C + b"a: " + b"b" * 33_000 + b"\r\n\r\n"
    assert (status(many), status(long)) == (b"431", b"431")


@pytest.mark.parametrize("fields", [b"", H2C])
@pytest.mark.parametrize("target", [b"x:1", b"/"])
def test_connect_is_refused(target: bytes, fields: bytes) -> None:
    assert status(b"CONNECT " + target + b" HTTP/1.1\r\nhost: x:1\r\n" + fields + b"\r\n") == b"501"


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"host: x\r\nhost: x\r\n",
        b"host: x\r\nHOST: y\r\n",
        b"host: x y\r\n",
        b"host: evil.example/path\r\n",
        b"host: user@evil.example\r\n",
        b"host: http://evil.example\r\n",
        b"host: [::1\r\n",
        b"host: [1:2:3]\r\n",
        b"host: ::1\r\n",
        b"host: a:b\r\n",
        b"host: a:1:2\r\n",
        b"host: a%zz\r\n",
        b"host: \xd0\xb1\r\n",
    ],
)
def test_request_without_exactly_one_valid_host_is_refused(fields: bytes) -> None:
    assert status(b"GET / HTTP/1.1\r\n" + fields + b"\r\n") == b"400"
    assert status(b"GET / HTTP/1.1\r\n" + fields + WEBSOCKET + b"\r\n") == b"400"


@pytest.mark.parametrize(
    "host",
    ["x", "", "a.example:8000", "127.0.0.1:1", "[::1]:8000", "[::ffff:1.2.3.4]", "my_service", "xn--e1afmkfd.example:"],
)
def test_valid_host_is_accepted(host: str) -> None:
    assert responses(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()) == ["GET / "]


def test_http_1_0_request_needs_no_host() -> None:
    assert responses(b"GET / HTTP/1.0\r\n\r\n") == ["GET / "]
    assert status(b"GET / HTTP/1.0\r\nhost: x\r\nhost: x\r\n\r\n") == b"400"


def test_each_request_of_a_connection_needs_a_host() -> None:
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"

    async def check() -> None:
        received = await exchange(Recorder(), request, request, request.replace(b"host: x\r\n", b""))
        assert [response[:3] for response in received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"400"]
        received = await exchange(Recorder(), request, request.replace(b"x", b"x/"))
        assert [response[:3] for response in received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400"]

    run(check)


@given(st.binary(max_size=30))
def test_valid_host_has_no_separator_of_a_url(value: bytes) -> None:
    if is_valid_host(value):
        assert not set(value) & set(b'/?#@\\ \t\r\n<>"^`{|}')


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip", b"identity", b"x"])
def test_other_transfer_codings_than_chunked_are_refused(coding: bytes) -> None:
    request = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: %b\r\n\r\n4\r\nbody\r\n0\r\n\r\n" % coding
    assert status(request) == b"501"


@pytest.mark.parametrize(
    "fields",
    [
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        b"content-length: 4\r\ncontent-length: 5\r\n",
        b"content-length: +4\r\n",
        b"content-length : 4\r\n",
    ],
)
def test_request_whose_end_is_ambiguous_is_refused(fields: bytes) -> None:
    assert status(b"POST / HTTP/1.1\r\nhost: x\r\n" + fields + b"\r\nbody") == b"400"


CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
LENGTH = "send one Content-Length"
FIELD = "send each field as one line"
CHUNK = "send each chunk as"
METHOD = "start the request with a method"
TARGET = "send the path in ASCII"
VERSION = "end the first line"
OTHER_VERSION = "send the request with HTTP/1.1 or HTTP/1.0"


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        *(
            (b"POST / HTTP/1.1\r\nhost: x\r\n" + fields + b"\r\n\r\nbody", text)
            for fields, text in [
                (
                    b"content-length: 4\r\ntransfer-encoding: chunked",
                    "send Content-Length or Transfer-Encoding, not both",
                ),
                (
                    b"transfer-encoding: chunked\r\ncontent-length: 4",
                    "send Content-Length or Transfer-Encoding, not both",
                ),
                (b"content-length: 4\r\ncontent-length: 4", LENGTH),
                (b"content-length: 4, 4", LENGTH),
                (b"content-length: +4", LENGTH),
                (b"content-length: ", LENGTH),
                (b"content-length: " + b"9" * 30, LENGTH),
                (b"content-length : 4", FIELD),
                (b"a b: c", FIELD),
                (b"no colon", FIELD),
                (b": no name", FIELD),
                (b"a: b\x00", FIELD),
                (b"a\x00: b", FIELD),
                (b"a: b\r\n c", FIELD),
                (b"a: b\nc: d", FIELD),
                (b"a: b\rc: d", FIELD),
                (b"transfer-encoding: chunked, chunked", "with one Transfer-Encoding: chunked"),
                (b"transfer-encoding: chunked\r\ntransfer-encoding: chunked", "with one Transfer-Encoding: chunked"),
                (b"transfer-encoding: gzip, chunked", "with Transfer-Encoding: chunked alone"),
            ]
        ),
        (CHUNKED + b"zz\r\nbody", CHUNK),
        (CHUNKED + b"f" * 20 + b"\r\nbody", CHUNK),
        (CHUNKED + b"1\r\nbody\r\n", CHUNK),
        (CHUNKED + b"1;\x00\r\nb\r\n", CHUNK),
        (CHUNKED + b"1\nb\r\n", CHUNK),
        (CHUNKED + b"0\r\na b: c\r\n\r\n", FIELD),
        (b"FOO / HTTP/1.1\r\nhost: x\r\n\r\n", METHOD),
        (b"get / HTTP/1.1\r\nhost: x\r\n\r\n", METHOD),
        (b"\x00\x00", METHOD),
        (b"GET a b HTTP/1.1\r\nhost: x\r\n\r\n", TARGET),
        (b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n", TARGET),
        ("GET /é HTTP/1.1\r\nhost: x\r\n\r\n".encode(), TARGET),
        (b"GET / HTTP/3.0\r\nhost: x\r\n\r\n", OTHER_VERSION),
        (b"GET / HTTP/2.0\r\nhost: x\r\n\r\n", OTHER_VERSION),
        (b"GET / RTSP/1.1\r\nhost: x\r\n\r\n", OTHER_VERSION),
        (b"GET /\r\n\r\n", OTHER_VERSION),
        (b"GET / http/1.1\r\n\r\n", VERSION),
        (b"GET /#a HTTP/1.1\r\nhost: x\r\n\r\n", "without a fragment"),
        (b"GET / HTTP/1.1\nhost: x\n\n", VERSION),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "use HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "this port speaks HTTP without TLS: use http://"),
        (b"GET / HTTP/1.1\r\n\r\n", "send a Host field"),
        (b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", "send a Host field with a host"),
        (b"CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\n", "without CONNECT"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 129 + b"\r\n", "send a shorter head"),
    ],
)
def test_refusal_says_what_to_send_and_closes_the_connection(request_: bytes, text: str) -> None:
    app = Recorder()

    async def check() -> None:
        head, _, body = (await exchange(app, request_ + SECOND)).partition(b"\r\n\r\n")
        fields = head.split(b"\r\n")[1:]
        assert b"connection: close" in fields
        assert b"content-type: text/plain; charset=utf-8" in fields
        assert b"content-length: %d" % len(body) in fields
        assert text in body.decode()

    run(check)
    assert [scope["path"] for scope in app.scopes if scope["path"] == "/second"] == []


def test_message_about_an_unknown_parser_error_says_what_to_send() -> None:
    status, message = describe_parser_error(ValueError("a new text of llhttp"), b"GET")
    assert (status, message.startswith("send a request as in RFC 9112")) == (HTTPStatus.BAD_REQUEST, True)


def test_expect_100_continue_gets_a_100_response() -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"

    async def check() -> None:
        assert (await exchange(Recorder(), head)).startswith(b"HTTP/1.1 100 Continue\r\n")

    run(check)
    assert responses(head, b"body") == ["POST / body"]


OTHER_VERSIONS = [b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/3.0"]


class TestVersions:
    """Only HTTP/1.1 and HTTP/1.0 are executed."""

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            *((b"POST /a " + version, b"505") for version in OTHER_VERSIONS),
            (b"SOURCE /a ICE/1.1", b"501"),
            (b"GET /a ICE/1.0", b"505"),
            (b"PRI * HTTP/2.0\r\n\r\nSM", b"505"),
            (b"POST /a", b"505"),
            (b"POST /a http/1.1", b"400"),
        ],
    )
    @pytest.mark.parametrize("fields", [b"", b"host: x\r\n", b"host: x\r\n" + WEBSOCKET, b"host: x\r\n" + H2C])
    def test_request_in_another_version_or_protocol_is_refused(
        self, line: bytes, expected: bytes, fields: bytes
    ) -> None:
        app = Recorder()
        request = line + b"\r\n" + fields + b"content-length: 4\r\n\r\nbody"

        async def check() -> None:
            for size in (len(request), 1, 3):
                pieces = [request[start : start + size] for start in range(0, len(request), size)]
                received = await exchange(app, *pieces)
                assert received.startswith(b"HTTP/1.1 " + expected), (size, received)
                assert b"\r\nconnection: close\r\n" in received

        run(check)
        assert app.scopes == []

    @pytest.mark.parametrize("line", [b"POST /a RTSP/1.0", b"POST /a   RTSP/1.1"])
    @pytest.mark.parametrize("start", [b"", b"\r\n", b"GET /first HTTP/1.1\r\nhost: x\r\n\r\n"])
    def test_request_in_rtsp_is_refused(self, start: bytes, line: bytes) -> None:
        app = Recorder()

        async def check() -> None:
            received = await exchange(app, start + line + b"\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody")
            assert b"HTTP/1.1 505 " in received

        run(check)
        assert "/a" not in [scope["path"] for scope in app.scopes]

    @pytest.mark.parametrize("version", OTHER_VERSIONS)
    def test_pipelined_request_in_another_version_is_refused(self, version: bytes) -> None:
        app = Recorder()
        first = b"POST /first HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody"
        second = b"POST /second " + version + b"\r\nhost: x\r\n\r\n"

        async def check() -> None:
            for pieces in ((first + second,), (first[:-2], first[-2:] + second), (first + second[:14], second[14:])):
                await exchange(app, *pieces)

        run(check)
        assert "/second" not in [scope["path"] for scope in app.scopes]

    @pytest.mark.parametrize("size", [1, 7, 10_000])
    @pytest.mark.parametrize("name", [b"RTSP/1.1", b"HTTP/0.9"])
    def test_name_of_another_protocol_elsewhere_in_a_request_is_no_reason_to_refuse_it(
        self, name: bytes, size: int
    ) -> None:
        body = b"POST /a " + name + b"\r\n\r\n" + name
        length = b"content-length: %d\r\n\r\n" % len(body)
        fields = b"host: x\r\nb: " + name + b"\r\n"
        requests = [
            b"POST /a?" + name + b" HTTP/1.1\r\na: " + name + b"\r\n" + fields + length + body,
            b"POST /a HTTP/1.1\r\n%btransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
            % (fields, len(body), body),
            b"POST /a HTTP/1.0\r\n" + fields + length + body,
        ]
        data = b"".join(requests)
        received = responses(*(data[start : start + size] for start in range(0, len(data), size)))
        assert received == ["POST /a " + body.decode()] * 3

    def test_data_after_an_upgrade_reaches_the_websocket(self) -> None:
        request = b"GET /ws HTTP/1.1\r\nhost: x\r\na: RTSP/1.1\r\n" + WEBSOCKET + b"b: ICE/1.0\r\n\r\nRTSP/ ICE/"
        app = Recorder()

        async def check() -> None:
            await exchange(app, request)

        run(check)
        assert [scope["type"] for scope in app.scopes] == ["websocket"]
