"""Readiness probes. A probe returns False, and does not raise, for a process that does not respond yet."""

import asyncio
from urllib.parse import urlsplit

from stack.process import Probe

TIMEOUT = 2.0  # seconds; a slower response counts as not ready


def http(url: str) -> Probe:
    """Return a probe that returns True when the response to GET `url` (plain HTTP) has status 200."""
    parts = urlsplit(url)
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()

    async def attempt() -> bool:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(request)
            status = await reader.readline()
        finally:
            writer.close()
        return status.split()[1:2] == [b"200"]

    return _with_timeout(attempt)


def tcp(host: str, port: int) -> Probe:
    """Return a probe that returns True when a TCP connection is accepted."""

    async def attempt() -> bool:
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return True

    return _with_timeout(attempt)


def _with_timeout(attempt: Probe) -> Probe:
    async def probe() -> bool:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await attempt()
        except (OSError, TimeoutError):
            return False

    return probe
