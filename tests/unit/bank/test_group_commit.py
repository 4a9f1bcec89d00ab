"""The group-commit pipeline of the bank, with a fake ledger that each test controls."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subgraphs.bank.service.adapters.postgres.batch import CommitOutcomeUnknown, Conflict
from subgraphs.bank.service.application import group_commit
from subgraphs.bank.service.application.group_commit import Pipeline
from subgraphs.bank.service.domain.model import Command, IdempotencyKey, Outcome, TransferKind
from wallet.errors import DeadlineExceeded, InternalError, ResourceExhausted, TransferNotFound, Unavailable
from wallet.money import Money


def command(key: str) -> Command:
    one = Money(Decimal(1), "RUB")
    return Command(
        uuid4(), TransferKind.TRANSFER, UUID(int=1), UUID(int=2), one, IdempotencyKey("p", "transfer", key), None, {}
    )


def commands(count: int, prefix: str = "") -> list[Command]:
    return [command(f"{prefix}{n}") for n in range(count)]


def expected_outcome(submitted: Command) -> Outcome:
    """Return an outcome that is unique to the command."""
    return TransferNotFound(submitted.key.key)


class FakeLedger:
    """Fake ledger that records each batch. A test can make batches wait or fail."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.locking: list[bool] = []
        self.released = asyncio.Event()
        self.released.set()
        self.entered = asyncio.Event()
        self.failures: list[Exception] = []
        self.poison: set[str] = set()

    async def commit(self, submitted: Sequence[Command], *, locking: bool) -> Sequence[Outcome]:
        self.batches.append([each.key.key for each in submitted])
        self.locking.append(locking)
        self.entered.set()
        await self.released.wait()
        if self.failures:
            raise self.failures.pop(0)
        if self.poison & set(self.batches[-1]):
            raise ValueError("numeric field overflow")
        return [expected_outcome(each) for each in submitted]

    def hold(self) -> None:
        """Make batches wait until `released` is set."""
        self.released.clear()
        self.entered.clear()


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of up to ten commands."""
    monkeypatch.setattr(group_commit, "_BATCH_SIZE", 10)


@asynccontextmanager
async def run_pipeline(ledger: FakeLedger) -> AsyncIterator[Pipeline]:
    pipeline = Pipeline(ledger.commit)
    task = asyncio.create_task(pipeline.run())
    yield pipeline
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def pipeline(ledger: FakeLedger) -> AsyncIterator[Pipeline]:
    async with run_pipeline(ledger) as pipeline:
        yield pipeline


@pytest.fixture
def no_retry_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without a pause."""
    monkeypatch.setattr(group_commit, "_FIRST_PAUSE_SECONDS", 0.0)


async def start_held_batch(ledger: FakeLedger, pipeline: Pipeline) -> "asyncio.Task[Outcome]":
    """Start a batch of one command, and hold it. Later commands then stay in the queue, unless they fill a batch."""
    ledger.hold()
    first = asyncio.create_task(pipeline.submit(command("first"), None))
    await ledger.entered.wait()
    return first


async def wait_until_queued(*waiting: "asyncio.Task[object]") -> None:
    """Let each task run until its commands are in the queue."""
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)


class TestBatches:
    async def test_single_command_is_committed_at_once(self, ledger: FakeLedger, pipeline: Pipeline) -> None:
        submitted = command("alone")
        assert await pipeline.submit(submitted, None) == expected_outcome(submitted)
        assert ledger.batches == [["alone"]]

    async def test_commands_that_arrive_during_a_commit_form_the_next_batch(
        self, ledger: FakeLedger, pipeline: Pipeline
    ) -> None:
        first = await start_held_batch(ledger, pipeline)
        others = [asyncio.create_task(pipeline.submit(each, None)) for each in commands(3)]
        await wait_until_queued(*others)
        ledger.released.set()
        assert [await first, *[await other for other in others]] == [
            TransferNotFound(key) for key in ("first", "0", "1", "2")
        ]
        assert ledger.batches == [["first"], ["0", "1", "2"]]

    async def test_bulk_submission_returns_its_outcomes_in_order(self, ledger: FakeLedger, pipeline: Pipeline) -> None:
        submitted = commands(1200)
        assert await pipeline.submit_all(submitted, None) == [expected_outcome(each) for each in submitted]
        assert [len(batch) for batch in ledger.batches] == [500, 500, 200]

    async def test_empty_submission_commits_nothing(self, ledger: FakeLedger, pipeline: Pipeline) -> None:
        assert await pipeline.submit_all([], None) == []
        assert ledger.batches == []

    async def test_single_commands_get_half_of_a_batch_beside_a_bulk_submission(
        self, ledger: FakeLedger, pipeline: Pipeline
    ) -> None:
        await start_held_batch(ledger, pipeline)
        bulk = asyncio.create_task(pipeline.submit_all(commands(2000, "bulk "), None))
        singles = [asyncio.create_task(pipeline.submit(each, None)) for each in commands(300, "single ")]
        await wait_until_queued(bulk, *singles)
        ledger.released.set()
        await asyncio.gather(*singles)
        second, third = ledger.batches[1:3]
        assert [sum(key.startswith("single") for key in batch) for batch in (second, third)] == [250, 50]
        assert len(second) == len(third) == 500
        await bulk

    async def test_short_bulk_submission_does_not_wait_for_a_long_one(
        self, ledger: FakeLedger, pipeline: Pipeline
    ) -> None:
        await start_held_batch(ledger, pipeline)
        long = asyncio.create_task(pipeline.submit_all(commands(5000, "long "), None))
        short = asyncio.create_task(pipeline.submit_all(commands(100, "short "), None))
        await wait_until_queued(long, short)
        ledger.released.set()
        await short
        assert sum(key.startswith("short") for key in ledger.batches[2]) == 100
        await long

    async def test_full_batch_does_not_wait_for_the_previous_batch(
        self, ledger: FakeLedger, pipeline: Pipeline
    ) -> None:
        first = await start_held_batch(ledger, pipeline)
        ledger.entered.clear()
        calls = [asyncio.create_task(pipeline.submit_all(commands(500, f"{n} "), None)) for n in range(3)]
        await ledger.entered.wait()
        await wait_until_queued(*calls)
        assert [len(batch) for batch in ledger.batches] == [1, 500]
        ledger.released.set()
        await asyncio.gather(first, *calls)
        assert [len(batch) for batch in ledger.batches] == [1, 500, 500, 500]

    async def test_commands_of_one_submission_are_committed_in_order(
        self, ledger: FakeLedger, pipeline: Pipeline
    ) -> None:
        ledger.hold()
        call = asyncio.create_task(pipeline.submit_all(commands(1500), None))
        await ledger.entered.wait()
        await wait_until_queued(call)
        assert len(ledger.batches) == 1  # no second batch has started, although a full batch is queued
        ledger.released.set()
        await call
        assert [key for batch in ledger.batches for key in batch] == [str(n) for n in range(1500)]

    @pytest.mark.usefixtures("small_batches")
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.integers(1, 14), min_size=1, max_size=12))
    async def test_every_command_is_committed_once_with_its_own_outcome(self, sizes: list[int]) -> None:
        ledger = FakeLedger()
        async with run_pipeline(ledger) as pipeline:
            calls = [commands(size, f"{n} ") for n, size in enumerate(sizes)]
            outcomes = await asyncio.gather(
                *(
                    pipeline.submit_all(call, None) if len(call) > 1 else as_list(pipeline.submit(call[0], None))
                    for call in calls
                )
            )
        assert outcomes == [[expected_outcome(each) for each in call] for call in calls]
        committed = [key for batch in ledger.batches for key in batch]
        assert sorted(committed) == sorted(each.key.key for call in calls for each in call)


async def as_list(submitted: Awaitable[Outcome]) -> list[Outcome]:
    return [await submitted]


class TestLocks:
    @pytest.mark.usefixtures("no_retry_pause")
    async def test_bulk_submission_and_retry_use_locks_and_a_single_command_does_not(
        self, ledger: FakeLedger, pipeline: Pipeline
    ) -> None:
        await pipeline.submit(command("alone"), None)
        ledger.failures = [Conflict()]
        await pipeline.submit(command("not alone"), None)
        await pipeline.submit_all(commands(2), None)
        assert ledger.locking == [False, False, True, True]

    @pytest.mark.usefixtures("no_retry_pause")
    async def test_retry_after_an_unknown_outcome_uses_locks(self, ledger: FakeLedger, pipeline: Pipeline) -> None:
        ledger.failures = [CommitOutcomeUnknown()]
        await pipeline.submit(command("k"), None)
        assert ledger.locking == [False, True]


class TestOverload:
    async def test_submission_beyond_the_queue_size_is_refused_and_not_committed(
        self, ledger: FakeLedger, pipeline: Pipeline
    ) -> None:
        first = await start_held_batch(ledger, pipeline)
        waiting = [asyncio.create_task(pipeline.submit_all(commands(8000, f"{n} "), None)) for n in range(2)]
        await wait_until_queued(*waiting)
        with pytest.raises(ResourceExhausted):
            await pipeline.submit_all(commands(4001, "refused "), None)
        single = asyncio.create_task(pipeline.submit(command("room for one"), None))
        await wait_until_queued(single)
        ledger.released.set()
        await asyncio.gather(first, single, *waiting)
        assert not [key for batch in ledger.batches for key in batch if key.startswith("refused")]
        assert await pipeline.submit_all(commands(8000, "later "), None)

    async def test_refused_single_command_is_not_committed(
        self, ledger: FakeLedger, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(group_commit, "_QUEUE_SIZE", 1)
        first = await start_held_batch(ledger, pipeline)
        second = asyncio.create_task(pipeline.submit(command("second"), None))
        await wait_until_queued(second)
        with pytest.raises(ResourceExhausted):
            await pipeline.submit(command("third"), None)
        ledger.released.set()
        await asyncio.gather(first, second)
        assert ledger.batches == [["first"], ["second"]]


class TestCallers:
    async def test_command_whose_deadline_passed_in_the_queue_is_dropped(
        self, ledger: FakeLedger, pipeline: Pipeline
    ) -> None:
        first = await start_held_batch(ledger, pipeline)
        late = asyncio.create_task(pipeline.submit(command("late"), time.monotonic()))
        bulk = asyncio.create_task(pipeline.submit_all(commands(2, "late "), time.monotonic()))
        on_time = asyncio.create_task(pipeline.submit(command("on_time"), time.monotonic() + 60))
        await wait_until_queued(late, bulk, on_time)
        ledger.released.set()
        assert isinstance(await late, DeadlineExceeded)
        assert all(isinstance(each, DeadlineExceeded) for each in await bulk)
        await asyncio.gather(first, on_time)
        assert ledger.batches == [["first"], ["on_time"]]

    async def test_command_whose_deadline_passes_in_a_batch_is_committed(
        self, ledger: FakeLedger, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ledger.hold()
        submitted = command("taken in time")
        deadline = time.monotonic() + 60
        taken = asyncio.create_task(pipeline.submit(submitted, deadline))
        await ledger.entered.wait()
        monkeypatch.setattr(group_commit, "monotonic", lambda: deadline + 1)
        ledger.released.set()
        assert await taken == expected_outcome(submitted)

    async def test_command_of_a_cancelled_caller_is_dropped_and_others_are_committed(
        self, ledger: FakeLedger, pipeline: Pipeline
    ) -> None:
        first = await start_held_batch(ledger, pipeline)
        gone, stays = (asyncio.create_task(pipeline.submit(command(key), None)) for key in ("gone", "stays"))
        await wait_until_queued(gone, stays)
        gone.cancel()
        first.cancel()
        await asyncio.wait([gone, first])
        ledger.released.set()
        assert await stays == TransferNotFound("stays")
        assert ledger.batches == [["first"], ["stays"]]

    async def test_waiting_commands_get_unavailable_when_the_pipeline_stops(self, ledger: FakeLedger) -> None:
        async with run_pipeline(ledger) as pipeline:
            taken = await start_held_batch(ledger, pipeline)
            waiting = asyncio.create_task(pipeline.submit_all(commands(3), None))
            await wait_until_queued(waiting)
        assert isinstance(await taken, Unavailable)
        assert all(isinstance(each, Unavailable) for each in await waiting)


class TestFailures:
    @pytest.mark.parametrize("poisoned", [{"0"}, {"499"}, {"123"}, {"17", "18", "400"}])
    async def test_command_rejected_by_the_database_does_not_affect_its_batch(
        self, ledger: FakeLedger, pipeline: Pipeline, poisoned: set[str]
    ) -> None:
        ledger.poison = poisoned
        submitted = commands(500)
        outcomes = await pipeline.submit_all(submitted, None)
        for each, outcome in zip(submitted, outcomes, strict=True):
            assert outcome == (InternalError() if each.key.key in poisoned else expected_outcome(each))
        assert len(ledger.batches) < 2 + 2 * len(poisoned) * 9

    @pytest.mark.usefixtures("no_retry_pause")
    async def test_conflict_is_retried(self, ledger: FakeLedger, pipeline: Pipeline) -> None:
        ledger.failures = [Conflict(), Conflict()]
        submitted = command("k")
        assert await pipeline.submit(submitted, None) == expected_outcome(submitted)
        assert ledger.batches == [["k"]] * 3

    @pytest.mark.usefixtures("no_retry_pause")
    async def test_repeated_conflicts_end_with_unavailable(self, ledger: FakeLedger, pipeline: Pipeline) -> None:
        ledger.failures = [Conflict() for _ in range(20)]
        assert isinstance(await pipeline.submit(command("k"), None), Unavailable)
        assert len(ledger.batches) == 9

    @pytest.mark.usefixtures("no_retry_pause")
    async def test_unknown_commit_outcome_is_retried_until_known(self, ledger: FakeLedger, pipeline: Pipeline) -> None:
        ledger.failures = [CommitOutcomeUnknown(), Unavailable(), Unavailable(), CommitOutcomeUnknown()]
        submitted = commands(3)
        assert await pipeline.submit_all(submitted, None) == [expected_outcome(each) for each in submitted]
        assert ledger.batches == [["0", "1", "2"]] * 5

    @pytest.mark.usefixtures("no_retry_pause")
    async def test_commit_outcome_that_stays_unknown_is_unavailable(
        self, ledger: FakeLedger, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(group_commit, "_COMMIT_TIMEOUT_SECONDS", 0.02)
        failures = iter(CommitOutcomeUnknown, None)

        async def fail(submitted: Sequence[Command], *, locking: bool) -> Sequence[Outcome]:
            raise next(failures)

        monkeypatch.setattr(pipeline, "_commit", fail)
        assert all(isinstance(each, Unavailable) for each in await pipeline.submit_all(commands(2), None))

    async def test_unreachable_database_is_not_retried(self, ledger: FakeLedger, pipeline: Pipeline) -> None:
        ledger.failures = [Unavailable("the ledger's database")]
        assert await pipeline.submit(command("k"), None) == Unavailable("the ledger's database")
        assert ledger.batches == [["k"]]
        assert await pipeline.submit(command("k"), None) == TransferNotFound("k")
