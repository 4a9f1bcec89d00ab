"""gRPC unary calls in as few instructions as Python allows.

A generator shares the processors with what it measures, and gRPC's own client takes about as much of them as the bank.
This one takes a tenth of that. It knows just as much HTTP/2 as small calls to a server that means well need: messages
that fit a frame, no compression of headers, windows for responses that never run out. What it does not expect ends the
run.
"""

import asyncio
import re
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

import grpc

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x6, 0x8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE = 0x1, 0x4
_FRAME: Final = struct.Struct(">IBI")  # length and type, flags, stream
_PREFIX: Final = struct.Struct(">BI")  # of a gRPC message: not compressed, length
_LARGEST: Final = 2**31 - 1
_FIRST_WINDOW: Final = 65_535
_OK: Final = b"\x0bgrpc-status\x010"
_CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
_INDEXED: Final = {":authority": 1, ":path": 4, "authorization": 23, "content-type": 31}  # RFC 7541, appendix A


class CallError(Exception):
    """A call that did not end well, or a server that said something unexpected."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: when, on the monotonic clock, and how many transfers it made."""

    began: float
    ended: float
    transfers: int


def header_block(target: str, path: str, timeout_seconds: float, token: str) -> bytes:
    """The headers of a call."""
    fields = {
        ":path": path,
        ":authority": target,
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": f"{timeout_seconds:.0f}S",
        "authorization": f"Bearer {token}",
    }
    return b"\x83\x86" + b"".join(_field(name, value) for name, value in fields.items())  # POST, http


async def keep_calling(
    target: str,
    requests: Iterator[tuple[bytes, bytes]],
    in_flight: int,
    until: float,
) -> Sequence[Call]:
    """Calls on one connection, so many at any moment, until the time is up and the last is answered.

    Args:
        target: `host:port`.
        requests: header blocks and messages.
        in_flight: how many calls run at any moment.
        until: on the monotonic clock; from then on none begins.

    Raises:
        CallError: one went wrong; those that ran are lost.
        OSError: nobody is there.
    """
    host, _, port = target.rpartition(":")
    loop = asyncio.get_running_loop()
    connection = _Connection(requests, in_flight, until)
    transport, _ = await loop.create_connection(lambda: connection, host, int(port))
    try:
        await connection.done
    finally:
        transport.abort()
    return connection.calls


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[tuple[bytes, bytes]], in_flight: int, until: float) -> None:
        self.calls: list[Call] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._in_flight = in_flight
        self._until = until
        self._began: dict[int, float] = {}
        self._stream = -1
        self._window = _FIRST_WINDOW
        self._held: deque[tuple[int, bytes, bytes]] = deque()
        self._unread = b""
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW_SIZE, _LARGEST)
        self._out += (
            _PREFACE,
            _frame(_SETTINGS, 0, 0, settings),
            _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST - _FIRST_WINDOW)),
        )
        for _ in range(self._in_flight):
            self._begin()
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            self._read(self._unread + data)
        except CallError as error:
            if not self.done.done():
                self.done.set_exception(error)
        self._flush()
        if not self._began and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(CallError(f"UNAVAILABLE: the connection was lost: {exc or 'closed'}"))

    def _read(self, data: bytes) -> None:
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
                    self._end(stream, data[body:after])
            elif kind != _DATA:
                self._control(kind, flags, stream, data[body:after])
        self._unread = data[at:]

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in {_SETTINGS, _PING}:
            if not flags & _ACK:
                self._out.append(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _WINDOW_UPDATE:
            if stream == 0:  # a stream's own window is never short for one small message
                self._window += int.from_bytes(payload, "big")
                self._release()
        else:
            raise CallError(f"the server sent an unexpected frame of type {kind}: {payload!r}")

    def _begin(self) -> None:
        block, message = next(self._requests)
        self._stream += 2
        self._began[self._stream] = time.monotonic()
        self._held.append((self._stream, block, message))
        self._release()

    def _release(self) -> None:
        """Sends what the server's window for the whole connection has room for."""
        while self._held and len(self._held[0][2]) + _PREFIX.size <= self._window:
            stream, block, message = self._held.popleft()
            data = _PREFIX.pack(0, len(message)) + message
            self._window -= len(data)
            self._out += (
                _FRAME.pack(len(block) << 8 | _HEADERS, _END_HEADERS, stream),
                block,
                _FRAME.pack(len(data) << 8 | _DATA, _END_STREAM, stream),
                data,
            )

    def _end(self, stream: int, trailers: bytes) -> None:
        if _OK not in trailers:
            raise CallError(_readable(trailers))
        now = time.monotonic()
        self.calls.append(Call(self._began.pop(stream), now, 1))
        if now < self._until:
            self._begin()

    def _flush(self) -> None:
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) << 8 | kind, flags, stream) + payload


def _field(name: str, value: str) -> bytes:
    """A literal that is never indexed, with the name from the static table where that has it."""
    index = _INDEXED.get(name)
    return (b"\x10" + _text(name) if index is None else _integer(0x10, 4, index)) + _text(value)


def _text(value: str) -> bytes:
    return _integer(0x00, 7, len(value)) + value.encode()


def _integer(pattern: int, bits: int, value: int) -> bytes:
    """RFC 7541, 5.1."""
    full = (1 << bits) - 1
    if value < full:
        return bytes([pattern | value])
    digits, value = [pattern | full], value - full
    while value > 0x7F:  # noqa: PLR2004  seven bits a byte
        digits.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes([*digits, value])


def _readable(trailers: bytes) -> str:
    """The status of a call that failed: its canonical name where it can be found, and the rest as it came."""
    code = re.search(rb"\x0bgrpc-status[\x01\x02](\d+)", trailers)
    name = _CODES.get(int(code[1]), code[1].decode()) if code else "no status"
    return f"{name}: {trailers.decode('latin-1').encode('ascii', 'replace').decode()}"
