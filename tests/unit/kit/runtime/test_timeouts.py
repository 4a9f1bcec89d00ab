"""`completes_within`: the wait is bounded, also in a task that has been cancelled."""

import asyncio

import pytest

from kit.runtime.timeouts import completes_within


async def hang(cancelled: asyncio.Event) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        cancelled.set()
        raise


async def test_completed_release_is_reported() -> None:
    assert await completes_within(30, asyncio.sleep(0))


async def test_error_of_the_release_is_raised() -> None:
    async def fail() -> None:
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        await completes_within(30, fail())


async def test_hanging_release_is_cancelled() -> None:
    cancelled = asyncio.Event()
    assert not await completes_within(0.01, hang(cancelled))
    assert cancelled.is_set()


async def test_hanging_release_is_cancelled_in_a_cancelled_task() -> None:
    cancelled, outcomes = asyncio.Event(), []

    async def run_and_release() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            outcomes.append(await completes_within(0.01, hang(cancelled)))

    task = asyncio.create_task(run_and_release())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcomes == [False]
    assert cancelled.is_set()


async def test_cancelled_wait_cancels_the_release() -> None:
    cancelled = asyncio.Event()
    task = asyncio.create_task(completes_within(30, hang(cancelled)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()
