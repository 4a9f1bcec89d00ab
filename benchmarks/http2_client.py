"""HTTP/2 client for unary gRPC calls that uses little processor time.

The load generator shares the processors with the bank. grpc.aio's client uses about as much processor time as the bank
itself; this client uses a tenth of that.

It supports small calls to a correct server only: one frame per message, no header compression, and response windows
that are never exhausted. An unexpected frame ends the run.
"""

import asyncio
import re
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, cast

import grpc

from benchmarks.load_generator import Call, CallError

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x6, 0x8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE = 0x1, 0x4
_FRAME: Final = struct.Struct(">IBI")  # length (24 bits) and type (8 bits), flags, stream
_MESSAGE_PREFIX: Final = struct.Struct(">BI")  # compression flag, length of the gRPC message
_MAX_WINDOW: Final = 2**31 - 1
_DEFAULT_WINDOW: Final = 65_535
_STATUS_OK: Final = b"\x0bgrpc-status\x010"
_CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
_STATIC_TABLE: Final = {":authority": 1, ":path": 4, "authorization": 23, "content-type": 31}  # RFC 7541, appendix A


def header_block(target: str, path: str, timeout_seconds: float, token: str) -> bytes:
    """Return the encoded request headers of a call."""
    fields = {
        ":path": path,
        ":authority": target,
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": f"{timeout_seconds:.0f}S",
        "authorization": f"Bearer {token}",
    }
    # The first two bytes are the method POST and the scheme http, as indexes of the static table.
    return b"\x83\x86" + b"".join(_encode_header(name, value) for name, value in fields.items())


async def call_repeatedly(
    target: str,
    requests: Iterator[tuple[bytes, bytes]],
    in_flight: int,
    deadline: float,
) -> Sequence[Call]:
    """Keep a number of calls in flight on one connection until the deadline, and wait for the last response.

    Args:
        target: `host:port`.
        requests: header block and message of each call, without end.
        in_flight: number of concurrent calls.
        deadline: time on the monotonic clock after which no call starts.

    Raises:
        CallError: a call failed; the results of the others are lost.
        OSError: the connection could not be opened.
    """
    host, _, port = target.rpartition(":")
    loop = asyncio.get_running_loop()
    connection = _Connection(requests, in_flight, deadline)
    transport, _ = await loop.create_connection(lambda: connection, host, int(port))
    try:
        await connection.done
    finally:
        transport.abort()
    return connection.calls


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[tuple[bytes, bytes]], in_flight: int, deadline: float) -> None:
        self.calls: list[Call] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._in_flight = in_flight
        self._deadline = deadline
        self._started: dict[int, float] = {}
        self._stream = -1
        self._window = _DEFAULT_WINDOW
        self._queued: deque[tuple[int, bytes, bytes]] = deque()
        self._buffer = b""
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW_SIZE, _MAX_WINDOW)
        self._out += (
            _PREFACE,
            _frame(_SETTINGS, 0, 0, settings),
            _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _MAX_WINDOW - _DEFAULT_WINDOW)),
        )
        for _ in range(self._in_flight):
            self._start_call()
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            self._read_frames(self._buffer + data)
        except CallError as error:
            if not self.done.done():
                self.done.set_exception(error)
        self._flush()
        if not self._started and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(CallError(f"UNAVAILABLE: the connection was lost: {exc or 'closed'}"))

    def _read_frames(self, data: bytes) -> None:
        at, end = 0, len(data)
        while end - at >= _FRAME.size:
            word, flags, stream = _FRAME.unpack_from(data, at)
            body = at + _FRAME.size
            after = body + (word >> 8)
            if after > end:
                break
            kind, at = word & 0xFF, after
            if kind == _HEADERS:
                if flags & _END_STREAM:
                    self._end_call(stream, data[body:after])
            elif kind != _DATA:
                self._handle_control_frame(kind, flags, stream, data[body:after])
        self._buffer = data[at:]

    def _handle_control_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in {_SETTINGS, _PING}:
            if not flags & _ACK:
                self._out.append(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _WINDOW_UPDATE:
            if stream == 0:  # the windows of single streams do not matter: each always fits one small message
                self._window += int.from_bytes(payload, "big")
                self._send_queued()
        else:
            raise CallError(f"the server sent an unexpected frame of type {kind}: {payload!r}")

    def _start_call(self) -> None:
        block, message = next(self._requests)
        self._stream += 2
        self._started[self._stream] = time.monotonic()
        self._queued.append((self._stream, block, message))
        self._send_queued()

    def _send_queued(self) -> None:
        """Send the queued calls that fit into the server's window for the connection."""
        while self._queued and len(self._queued[0][2]) + _MESSAGE_PREFIX.size <= self._window:
            stream, block, message = self._queued.popleft()
            data = _MESSAGE_PREFIX.pack(0, len(message)) + message
            self._window -= len(data)
            self._out += (
                _FRAME.pack(len(block) << 8 | _HEADERS, _END_HEADERS, stream),
                block,
                _FRAME.pack(len(data) << 8 | _DATA, _END_STREAM, stream),
                data,
            )

    def _end_call(self, stream: int, trailers: bytes) -> None:
        if _STATUS_OK not in trailers:
            raise CallError(_describe_failure(trailers))
        now = time.monotonic()
        self.calls.append(Call(self._started.pop(stream), now, 1))
        if now < self._deadline:
            self._start_call()

    def _flush(self) -> None:
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) << 8 | kind, flags, stream) + payload


def _encode_header(name: str, value: str) -> bytes:
    """Encode a header as a never-indexed literal, with its name as an index of the static table where possible."""
    index = _STATIC_TABLE.get(name)
    encoded_name = b"\x10" + _encode_string(name) if index is None else _encode_integer(0x10, 4, index)
    return encoded_name + _encode_string(value)


def _encode_string(value: str) -> bytes:
    return _encode_integer(0x00, 7, len(value)) + value.encode()


def _encode_integer(pattern: int, bits: int, value: int) -> bytes:
    """Encode an integer with a prefix of `bits` bits (RFC 7541, section 5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([pattern | value])
    digits, value = [pattern | limit], value - limit
    while value > 0x7F:  # noqa: PLR2004  seven bits per byte
        digits.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes([*digits, value])


def _describe_failure(trailers: bytes) -> str:
    """Return the canonical name of the status, if the trailers contain it, and the raw trailers."""
    code = re.search(rb"\x0bgrpc-status[\x01\x02](\d+)", trailers)
    name = _CODES.get(int(code[1]), code[1].decode()) if code else "no status"
    return f"{name}: {trailers.decode('latin-1').encode('ascii', 'replace').decode()}"
