"""HTTP/1.1 client that uses little processor time.

The load generator shares the processors with the gateway, so a request must be cheap. It takes 10 µs of processor time
here, but 85 µs with aiohttp or with geventhttpclient, which is Locust's client.

It supports responses with a Content-Length from a correct server only. An unexpected response ends the run.
"""

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, cycle
from typing import Final, TypeAlias, cast

import orjson

from benchmarks.load_generator import Call, CallError

UNIQUE_KEY: Final = "<new-key-for-every-sent-request>"
"""Placeholder in a request. The client replaces it by a new idempotency key each time it sends the request."""

_KEY_PREFIX_BYTES: Final = 8
_HEADERS_END: Final = b"\r\n\r\n"
_CONTENT_LENGTH: Final = b"\r\ncontent-length: "


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLoad:
    """Load of HTTP requests.

    Attributes:
        target: `host:port`.
        requests: results of `get` and `post`, sent in turn and repeated without end. A request with an idempotency key
            contains `UNIQUE_KEY` in place of the key, because a repeated key would make the request a cheap replay.
        connections: number of connections; each has at most one request in flight.
        status: expected status of each response.
        marker: text that the body of each response must contain.
        rate: requests per second of an open loop, in which the latency of a request starts when it is due, even if no
            connection is free then. 0 means a closed loop: each connection sends its next request after a response.
    """

    target: str
    requests: Sequence[str]
    connections: int
    status: int
    marker: str
    rate: float = 0.0


def get(path: str, headers: Mapping[str, str]) -> str:
    """Return the text of a GET request."""
    return _request("GET", path, headers)


def post(path: str, headers: Mapping[str, str], body: object) -> str:
    """Return the text of a POST request with a JSON body."""
    content = orjson.dumps(body).decode()
    length = str(len(content.encode()))
    return _request("POST", path, {"Content-Type": "application/json", "Content-Length": length, **headers}) + content


def _request(method: str, path: str, headers: Mapping[str, str]) -> str:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "bench", **headers}.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n"


async def request_repeatedly(load: HttpLoad, deadline: float) -> Sequence[Call]:
    """Send requests until the deadline (a time on the monotonic clock), and wait for the last response.

    Raises:
        CallError: a response is not the expected one, or a connection was lost.
        OSError: a connection could not be opened.
    """
    host, _, port = load.target.rpartition(":")
    loop = asyncio.get_running_loop()
    requests = requests_with_unique_keys(load.requests)
    due_times = _open_loop(load.rate, deadline) if load.rate else _closed_loop(deadline)
    connections: list[_Connection] = []
    transports = []
    try:
        for _ in range(load.connections):
            connections.append(_Connection(load, requests, due_times))
            transport, _ = await loop.create_connection(lambda: connections[-1], host, int(port))
            transports.append(transport)
        await asyncio.gather(*(connection.done for connection in connections))
    finally:
        for transport in transports:
            transport.abort()
    return list(chain.from_iterable(connection.calls for connection in connections))


def requests_with_unique_keys(requests: Sequence[str]) -> Iterator[bytes]:
    """Repeat the requests without end, each time with another idempotency key in the place of `UNIQUE_KEY`."""
    placeholder = UNIQUE_KEY.encode()
    prefix = secrets.token_hex(_KEY_PREFIX_BYTES).encode()  # so that no two loads have equal keys
    for number, request in enumerate(cycle([request.encode() for request in requests])):
        # The key is as long as the placeholder, so the Content-Length stays correct.
        yield request.replace(placeholder, b"%b%016x" % (prefix, number))


DueTimes: TypeAlias = Iterator[float]
"""Due time of each request, on the monotonic clock, until the deadline. A free connection takes the next due time."""


def _closed_loop(deadline: float) -> DueTimes:
    while (now := time.monotonic()) < deadline:
        yield now


def _open_loop(rate: float, deadline: float) -> DueTimes:
    start = time.monotonic()
    for number in count():
        due = start + number / rate
        if due >= deadline:
            return
        yield due


class _Connection(asyncio.Protocol):
    def __init__(self, load: HttpLoad, requests: Iterator[bytes], due_times: DueTimes) -> None:
        self.calls: list[Call] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._due_times = due_times
        self._status = f"HTTP/1.1 {load.status} ".encode()
        self._marker = load.marker.encode()
        self._buffer = b""
        self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._schedule_request()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        headers_end = self._buffer.find(_HEADERS_END)
        if headers_end < 0:
            return
        at = self._buffer.find(_CONTENT_LENGTH, 0, headers_end)
        value = at + len(_CONTENT_LENGTH)
        length = int(self._buffer[value : self._buffer.find(b"\r\n", value)]) if at >= 0 else 0
        if len(self._buffer) < headers_end + len(_HEADERS_END) + length:
            return
        response, self._buffer = self._buffer, b""
        now = time.monotonic()
        if not response.startswith(self._status) or response.find(self._marker, headers_end) < 0:
            self._finish(CallError(response.decode(errors="replace")))
            return
        self.calls.append(Call(self._started, now, 1))
        self._schedule_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(CallError(f"the connection was lost: {exc or 'closed'}"))

    def _schedule_request(self) -> None:
        due = next(self._due_times, None)
        if due is None:
            self._finish(None)
            return
        self._started = due
        if (wait := due - time.monotonic()) > 0:
            asyncio.get_running_loop().call_later(wait, self._send_request)
        else:
            self._send_request()

    def _send_request(self) -> None:
        if not self._transport.is_closing():  # it is closing if another connection's failure has ended the run
            self._transport.write(next(self._requests))

    def _finish(self, error: CallError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
