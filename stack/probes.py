"""Ways to ask whether a process can be used by now. None of them raises for one that is not there yet."""

import asyncio
from urllib.parse import urlsplit

from stack.process import Probe

TIMEOUT = 2.0  # seconds an answer may take; a slower one counts as "not yet"


def http(url: str) -> Probe:
    """Ready once GET `url` (plain HTTP) is answered with 200."""
    parts = urlsplit(url)
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()

    async def ask() -> bool:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(request)
            status = await reader.readline()
        finally:
            writer.close()
        return status.split()[1:2] == [b"200"]

    return _answered(ask)


def tcp(host: str, port: int) -> Probe:
    """Ready once a connection is accepted."""

    async def ask() -> bool:
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return True

    return _answered(ask)


def _answered(ask: Probe) -> Probe:
    async def probe() -> bool:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await ask()
        except (OSError, TimeoutError):
            return False

    return probe
