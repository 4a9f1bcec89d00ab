"""Restarts PostgreSQL whenever it ends, until SIGTERM: `python -m tests.faults.keeper HOME PORT`.

It is a separate process, because PostgreSQL is started with a fork if the user is root, and a fork of the test's
process is not safe during gRPC calls.
"""

import asyncio
import signal
import sys
from pathlib import Path

from stack.engines.postgres import Postgres


async def keep(home: Path, port: int) -> None:
    """Start PostgreSQL again whenever it ends."""
    postgres = Postgres(home, port, databases=("bank",))
    try:
        while True:
            await postgres.start()
            await postgres.wait()
    finally:
        await postgres.stop()


async def main(home: Path, port: int) -> None:
    keeping = asyncio.create_task(keep(home, port))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, keeping.cancel)
    await asyncio.wait({keeping})
    if not keeping.cancelled():
        keeping.result()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
