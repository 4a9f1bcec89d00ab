"""Limit of the work in progress: its sums, the order of the works, and works that end while they wait."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.runtime.fair_limit import FairLimit
from wallet.errors import ResourceExhausted


@dataclass
class Works:
    """Works of a limit.

    Attributes:
        limit: the limit.
        started: names of the works in the order of their starts.
        tasks: task of each work.
        ends: events that end the works.
    """

    limit: FairLimit
    started: list[str] = field(default_factory=list)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    ends: dict[str, asyncio.Event] = field(default_factory=dict)

    async def add(self, client: str, size: int = 1, name: str = "") -> None:
        """Let a client begin a work, which may have to wait."""
        name = name or f"{client}{len(self.tasks)}"
        self.ends[name] = asyncio.Event()

        async def work() -> None:
            async with self.limit.hold(client, size):
                self.started.append(name)
                await self.ends[name].wait()

        self.tasks[name] = asyncio.create_task(work())
        await settle()

    async def end(self, name: str) -> None:
        """End a work."""
        self.ends[name].set()
        await settle()

    async def end_all(self) -> None:
        """End all works in the order of their starts."""
        for name in self.tasks:
            self.ends[name].set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def settle() -> None:
    """Let all tasks continue until they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_works_of_one_client_start_in_their_order() -> None:
    works = Works(FairLimit(2))
    for name in ("a", "b", "c", "d"):
        await works.add("client", name=name)
    assert works.started == ["a", "b"]
    await works.end("b")
    assert works.started == ["a", "b", "c"]
    await works.end_all()
    assert works.started == ["a", "b", "c", "d"]


async def test_waiting_work_of_one_client_does_not_delay_another() -> None:
    works = Works(FairLimit(1))
    await works.add("greedy", name="a")
    await works.add("greedy", name="b")
    await works.add("other", name="c")
    assert works.started == ["a", "c"]
    await works.end_all()


async def test_clients_take_turns() -> None:
    works = Works(FairLimit(1, 1))
    await works.add("other", name="first")
    for name in ("a", "b", "c"):
        await works.add("greedy", name=name)
    await works.add("other", name="d")
    for name in ("first", "a", "d", "b"):
        await works.end(name)
    assert works.started == ["first", "a", "d", "b", "c"]
    await works.end_all()


async def test_small_works_do_not_overtake_a_large_one_for_ever() -> None:
    works = Works(FairLimit(4, 4))
    await works.add("a", 2, "first")
    await works.add("b", 4, "large")
    await works.add("c", 1, "small")
    assert works.started == ["first"], "the small work fits, but the large one has waited for longer"
    await works.end("first")
    await works.end("large")
    assert works.started == ["first", "large", "small"]
    await works.end_all()


async def test_too_large_work_counts_as_much_as_one_client_may_have() -> None:
    works = Works(FairLimit(10, 20))
    await works.add("a", 1_000, "large")
    await works.add("b", 10, "other")
    await works.add("a", 1, "second")
    assert works.started == ["large", "other"]
    await works.end("large")
    assert works.started == ["large", "other", "second"]
    await works.end_all()


async def test_cancelled_work_lets_the_next_one_start() -> None:
    works = Works(FairLimit(4, 4))
    await works.add("a", 2, "first")
    await works.add("b", 4, "large")
    await works.add("c", 2, "small")
    works.tasks["large"].cancel()
    await settle()
    assert works.started == ["first", "small"]
    await works.end_all()
    assert not works.limit


async def test_work_that_is_cancelled_at_its_start_gives_its_place_back() -> None:
    works = Works(FairLimit(1))
    for name in ("first", "cancelled", "next"):
        await works.add("a", name=name)
    works.ends["first"].set()
    await asyncio.sleep(0)
    assert works.tasks["first"].done()
    works.tasks["cancelled"].cancel()  # it may start, but its task has not continued yet
    await settle()
    assert works.started == ["first", "next"]
    await works.end_all()
    assert not works.limit


async def test_work_that_cannot_start_in_time_is_refused() -> None:
    limit = FairLimit(1)
    async with limit.hold("a"):
        with pytest.raises(ResourceExhausted):
            async with limit.hold("a", timeout_seconds=0, refusal=ResourceExhausted):
                pytest.fail("started")
        with pytest.raises(TimeoutError):
            async with limit.hold("a", timeout_seconds=0):
                pytest.fail("started")
    assert not limit


async def test_work_that_was_released_early_is_not_released_again() -> None:
    limit = FairLimit(1)
    async with limit.hold("a") as hold:
        hold.release()
        async with limit.hold("a"):
            hold.release()
            assert not limit.try_enter("a", 1)
    assert not limit


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(0, 7)),
        st.tuples(st.sampled_from(["end", "cancel", "cancel without a pause"]), st.integers(0, 30), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS, st.integers(1, 5), st.integers(5, 9))
def test_any_works_stay_within_the_limits_and_none_waits_without_reason(
    steps: list[tuple[str, str | int, int]], per_client: int, total: int
) -> None:
    async def check() -> None:
        works = Works(FairLimit(per_client, total))
        waiting: dict[str, int] = {}  # sizes by name, in the order of arrival
        running: dict[str, int] = {}
        for action, target, size in steps:
            names = [*waiting, *running]
            if action == "add":
                name = f"{target}{len(works.tasks)}"
                waiting[name] = max(1, min(size, per_client))
                await works.add(str(target), size, name)
            elif names:
                name = names[int(target) % len(names)]
                if action == "end":
                    works.ends[name].set()
                else:
                    works.tasks[name].cancel()
            if action == "cancel without a pause":
                continue  # the next step happens before the task continues
            await settle()
            done = {name for name, task in works.tasks.items() if task.done()}
            waiting = {name: size for name, size in waiting.items() if name not in done or name in works.started}
            started = [name for name in waiting if name in works.started]  # one step may start several
            for client in "abc":
                of_client = [name for name in waiting if name[0] == client]
                starting = [name for name in started if name[0] == client]
                assert starting == of_client[: len(starting)], "overtaken by the same client"
            running |= {name: waiting.pop(name) for name in started}
            running = {name: size for name, size in running.items() if name not in done}
            used = {client: sum(size for name, size in running.items() if name[0] == client) for client in "abc"}
            assert all(each <= per_client for each in used.values())
            assert sum(used.values()) <= total
            heads = {name[0]: size for name, size in reversed(waiting.items())}
            eligible = [size for client, size in heads.items() if used[client] + size <= per_client]
            assert not eligible or max(eligible) + sum(used.values()) > total, "a work waits without reason"
        await works.end_all()
        assert not works.limit

    asyncio.run(check())
