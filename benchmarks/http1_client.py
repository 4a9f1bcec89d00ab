"""Callers by HTTP, as lean as Python allows: `python -m benchmarks.http1_client`, spoken to by `gateway.py`.

It reads a `Load` from its standard input, one line of JSON; writes `ready`; reads a `Window`; asks until its end;
writes `Calls`. It knows just as much HTTP/1.1 as a server that means well needs. What it does not expect ends the run.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count, cycle
from typing import Final, TypeAlias, cast

import orjson
import uvloop

from benchmarks import load_generator
from benchmarks.bank_load import Calls, Window, tally
from benchmarks.http2_client import Call, CallError

_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a generator does.

    Attributes:
        target: `host:port`.
        requests: as `get` and `post` make them, each in its turn.
        connections: each has at most one request on its way.
        status: what every response has.
        sign: what every response has in its body.
        rate: requests a second, whatever becomes of those before; what it takes begins when one is due, and not when a
            connection is free for it. Without a rate, each connection asks again as soon as it is answered.
    """

    target: str
    requests: Sequence[str]
    connections: int
    status: int
    sign: str
    rate: float = 0.0


def get(path: str, headers: Mapping[str, str]) -> str:
    """A request as it goes over the wire."""
    return _request("GET", path, headers)


def post(path: str, headers: Mapping[str, str], body: object) -> str:
    """The same with JSON."""
    content = orjson.dumps(body).decode()
    length = str(len(content.encode()))
    return _request("POST", path, {"Content-Type": "application/json", "Content-Length": length, **headers}) + content


def _request(method: str, path: str, headers: Mapping[str, str]) -> str:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "bench", **headers}.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n"


async def keep_asking(load: Load, until: float) -> Sequence[Call]:
    """Asks until the time is up and the last is answered.

    Raises:
        CallError: a response was not as it should be, or a connection was lost.
        OSError: nobody is there.
    """
    host, _, port = load.target.rpartition(":")
    loop = asyncio.get_running_loop()
    requests = cycle([request.encode() for request in load.requests])
    due: Due = _due(load.rate, until) if load.rate else _at_once(until)
    connections: list[_Connection] = []
    transports = []
    try:
        for _ in range(load.connections):
            connections.append(_Connection(load, requests, due))
            transport, _ = await loop.create_connection(lambda: connections[-1], host, int(port))
            transports.append(transport)
        await asyncio.gather(*(connection.done for connection in connections))
    finally:
        for transport in transports:
            transport.abort()
    return list(chain.from_iterable(connection.calls for connection in connections))


Due: TypeAlias = Iterator[float]
"""When each request is due, on the monotonic clock; it ends with the time. Whoever is free takes the next one."""


def _at_once(until: float) -> Due:
    while (now := time.monotonic()) < until:
        yield now


def _due(rate: float, until: float) -> Due:
    since = time.monotonic()
    for number in count():
        due = since + number / rate
        if due >= until:
            return
        yield due


class _Connection(asyncio.Protocol):
    def __init__(self, load: Load, requests: Iterator[bytes], due: Due) -> None:
        self.calls: list[Call] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._due = due
        self._status = f"HTTP/1.1 {load.status} ".encode()
        self._sign = load.sign.encode()
        self._unread = b""
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        head = self._unread.find(_END_OF_HEAD)
        if head < 0:
            return
        at = self._unread.find(_LENGTH, 0, head)
        length = int(self._unread[at + len(_LENGTH) : self._unread.find(b"\r\n", at + len(_LENGTH))]) if at >= 0 else 0
        if len(self._unread) < head + len(_END_OF_HEAD) + length:
            return
        response, self._unread = self._unread, b""
        now = time.monotonic()
        if not response.startswith(self._status) or response.find(self._sign, head) < 0:
            self._end(CallError(response.decode(errors="replace")))
            return
        self.calls.append(Call(self._began, now, 1))
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(CallError(f"the connection was lost: {exc or 'closed'}"))

    def _next(self) -> None:
        due = next(self._due, None)
        if due is None:
            self._end(None)
            return
        self._began = due
        if (wait := due - time.monotonic()) > 0:
            asyncio.get_running_loop().call_later(wait, self._ask)
        else:
            self._ask()

    def _ask(self) -> None:
        self._transport.write(next(self._requests))

    def _end(self, error: CallError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


async def generate(load: Load, window: Window) -> Calls:
    """Keeps asking until the window's end, or until a request fails."""
    try:
        return tally(await keep_asking(load, window.until), window)
    except (CallError, OSError) as error:
        return tally([], window, str(error))


def main() -> None:
    """One conversation with whoever started it."""
    load = Load(**orjson.loads(sys.stdin.readline()))
    gc.disable()  # a short life, and a pause of its own would look like the server's
    load_generator.answer(b"ready")
    line = sys.stdin.readline()
    if line:  # or nobody is there any more
        calls = uvloop.run(generate(load, Window(**orjson.loads(line))))
        load_generator.answer(orjson.dumps(asdict(calls)))
        sys.stdin.read()  # stays until it is ended: what it used of the processors can be read only while it is there


if __name__ == "__main__":
    main()
