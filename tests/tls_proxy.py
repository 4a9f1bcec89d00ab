"""TLS in front of a server that has none."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

from provisioning.certificates import CertificateFiles
from stack.ports import HOST


@asynccontextmanager
async def tls_proxy(port: int, pair: CertificateFiles) -> AsyncIterator[int]:
    """Forward TLS connections to a port of this machine, and yield the port that accepts them.

    Args:
        port: port of the server.
        pair: certificate of the proxy, and its key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)

    async def forward(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with closing(to_client):
            server, to_server = await asyncio.open_connection(HOST, port)
            with closing(to_server):
                await asyncio.gather(_copy(client, to_server), _copy(server, to_client))

    proxy = await asyncio.start_server(forward, HOST, 0, ssl=context)
    async with proxy:
        yield proxy.sockets[0].getsockname()[1]


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError), closing(target):
        while data := await source.read(2**16):
            target.write(data)
            await target.drain()
