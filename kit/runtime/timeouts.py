"""Bounded waits for the release of resources."""

import asyncio
from collections.abc import Awaitable


async def completes_within(seconds: float, release: Awaitable[object]) -> bool:
    """Await the release of a resource, and cancel it after this time. Return whether it completed.

    It also works in a task that has been cancelled, as the `finally` block of a stopping service is. There,
    `asyncio.timeout` raises CancelledError in place of TimeoutError before Python 3.11.4.

    Raises:
        Exception: the error of the release.
    """
    task = asyncio.ensure_future(release)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if done:
            task.result()
        return bool(done)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
