"""A PostgreSQL that comes back whenever it dies: `python -m tests.faults.keeper HOME PORT`, until SIGTERM.

In a process of its own, so that it may be killed and started again while gRPC is at work in the test's: as root,
PostgreSQL is started by a real fork(), which gRPC at work does not survive.
"""

import asyncio
import signal
import sys
from pathlib import Path

from stack.engines.postgres import Postgres


async def keep(home: Path, port: int) -> None:
    """Starts it again and again."""
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
