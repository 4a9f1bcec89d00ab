"""Turnstile: how many pieces of work start in one turn of the event loop, and in which order."""

import asyncio

from kit.http.turnstile import Turnstile


async def _turns(started: list[str], total: int) -> list[str]:
    """Run the loop until all have started; return those that started in each turn."""
    turns = []
    while len(started) < total:
        before = len(started)
        await asyncio.sleep(0)
        turns.append("".join(started[before:]))
    return [each for each in turns if each]


async def test_few_requests_start_in_one_turn_and_addresses_take_turns() -> None:
    turnstile, started = Turnstile(2), list[str]()

    async def start(address: str) -> None:
        await turnstile.enter(address)
        started.append(address)

    tasks = [asyncio.create_task(start(address)) for address in "aaaaaab"]
    assert await _turns(started, len(tasks)) == ["aa", "ab", "aa", "a"]


async def test_data_that_waits_is_handled_in_later_turns_and_addresses_take_turns() -> None:
    turnstile, started = Turnstile(2), list[str]()
    for address in "aaaaaab":
        if turnstile.try_enter():
            started.append(address)
        else:
            turnstile.enter_later(address, lambda address=address: started.append(address))  # type: ignore[misc]
    assert started == ["a", "a"]
    assert await _turns(started, 7) == ["ab", "aa", "a"]


async def test_work_does_not_overtake_work_that_waits() -> None:
    turnstile = Turnstile(1)
    assert turnstile.try_enter()
    turnstile.enter_later("a", lambda: None)
    turnstile.enter_later("a", lambda: None)
    await asyncio.sleep(0)
    assert not turnstile.try_enter()


async def test_cancelled_request_does_not_hold_up_the_others() -> None:
    turnstile = Turnstile(1)
    await turnstile.enter("a")
    first, cancelled, other = (asyncio.create_task(turnstile.enter("a")) for _ in range(3))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(first, other)
    assert cancelled.cancelled()
