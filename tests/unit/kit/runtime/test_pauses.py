"""Long lists are converted in parts."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from kit.runtime.pauses import ITEMS_PER_TURN, convert_all


async def test_other_tasks_run_between_the_parts_of_a_long_list() -> None:
    converted = list[int]()
    seen = set[int]()

    async def watch() -> None:
        while True:
            seen.add(len(converted))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await convert_all(converted.append, range(5 * ITEMS_PER_TURN))
    watching.cancel()
    assert {ITEMS_PER_TURN * part for part in range(1, 5)} <= seen


@given(st.lists(st.integers(), max_size=3 * ITEMS_PER_TURN))
def test_all_items_are_converted_in_order(items: list[int]) -> None:
    assert asyncio.run(convert_all(str, items)) == [str(item) for item in items]
