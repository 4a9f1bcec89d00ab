"""Group commit: concurrent commands meet in batches. While one batch commits, the next one collects.

There is no timer: a lone command is a batch of one, at once; under load batches grow by themselves.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

import structlog

from subgraphs.bank import metrics
from subgraphs.bank.domain import Command, Outcome
from subgraphs.bank.repository import Conflict, Lost
from wallet.errors import DeadlineExceeded, InternalError, ResourceExhausted, Unavailable, WalletError

log = structlog.get_logger(__name__)

Commit = Callable[[Sequence[Command]], Awaitable[Sequence[Outcome]]]
"""Decides and commits commands in one transaction: an outcome each, or an exception and nothing is known of any."""

_BATCH: Final = 500
_WAITING: Final = 20_000
_ATTEMPTS: Final = 8
_PAUSE_SECONDS: Final = 0.01
_PATIENCE_SECONDS: Final = 8.0
_WHAT: Final = "the ledger"


@dataclass(slots=True, eq=False)
class _Item:
    """A command on its way. `answer` is its caller's; a caller who goes away only cancels that."""

    command: Command
    answer: asyncio.Future[Outcome]
    deadline: float | None
    arrived: float


class Pipeline:
    """Takes commands from many callers and commits them in batches, one at a time.

    Each caller gets its own outcome: a refusal, or a command that the database will not take, never touches its
    neighbours. When a commit's answer is lost the batch is run again with the same keys, until it is known; what cannot be
    known in time is Unavailable, never a refusal.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._single: deque[_Item] = deque()
        self._bulk: deque[_Item] = deque()
        self._arrived = asyncio.Event()

    async def submit(self, command: Command, deadline: float | None) -> Outcome:
        """The outcome of one command.

        Args:
            command: a checked one.
            deadline: on the monotonic clock, when its caller stops waiting; still queued then, it is dropped. A command
                that a batch has taken is never dropped.

        Raises:
            ResourceExhausted: too many wait already; nothing was done.
            DeadlineExceeded: the deadline passed in the queue; nothing was done.
            Unavailable: the outcome is unknown; submitting the same key again is safe.
        """
        self._admit(1)
        return await self._enqueue(self._single, command, deadline)

    async def submit_all(self, commands: Sequence[Command], deadline: float | None) -> list[Outcome]:
        """The outcome of each command, in order; what `submit` would raise for one stands in its place.

        Raises:
            ResourceExhausted: too many wait already; nothing was done.
        """
        self._admit(len(commands))
        answers = [self._enqueue(self._bulk, command, deadline) for command in commands]
        results = await asyncio.gather(*answers, return_exceptions=True)
        return [_as_outcome(result) for result in results]

    async def run(self) -> None:
        """Commits batches for ever. Cancelled in the middle of a commit, it leaves that batch's callers with Unavailable."""
        while True:
            await self._arrived.wait()
            batch = self._take()
            if not batch:
                self._arrived.clear()
                continue
            metrics.BATCH_SIZE.observe(len(batch))
            metrics.BATCH_WAIT_SECONDS.observe(monotonic() - batch[0].arrived)
            try:
                await self._settle(batch)
            finally:
                _fail(batch, lambda: Unavailable(_WHAT))

    def _admit(self, count: int) -> None:
        if len(self._single) + len(self._bulk) + count > _WAITING:
            metrics.SHED.inc(count)
            raise ResourceExhausted

    def _enqueue(self, queue: deque[_Item], command: Command, deadline: float | None) -> asyncio.Future[Outcome]:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        queue.append(_Item(command, answer, deadline, monotonic()))
        self._arrived.set()
        return answer

    def _take(self) -> list[_Item]:
        """The next batch: singles and bulk items in turn, as long as there are any of both."""
        batch: list[_Item] = []
        now = monotonic()
        while len(batch) < _BATCH and (self._single or self._bulk):
            for queue in (self._single, self._bulk):
                if queue and self._still_wanted(item := queue.popleft(), now):
                    batch.append(item)
        return batch

    @staticmethod
    def _still_wanted(item: _Item, now: float) -> bool:
        if item.deadline is not None and item.deadline <= now:
            _fail([item], lambda: DeadlineExceeded(_WHAT))
        return not item.answer.done()

    async def _settle(self, items: Sequence[_Item]) -> None:
        """Commits the items and answers each caller, whatever happens."""
        commands = [item.command for item in items]
        try:
            outcomes = await self._until_known(commands)
        except Unavailable as error:
            _fail(items, lambda: Unavailable(error.what))
        except Exception as error:  # noqa: BLE001  one command the database will not take; find which
            if len(items) == 1:
                log.error("command refused by the database", transfer=str(commands[0].transfer_id), exc_info=error)
                _fail(items, InternalError)
                return
            middle = len(items) // 2
            await self._settle(items[:middle])
            await self._settle(items[middle:])
        else:
            for item, outcome in zip(items, outcomes, strict=True):
                if not item.answer.done():
                    item.answer.set_result(outcome)

    async def _until_known(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        """Commits the commands, again and again while another transaction was first or the answer was lost.

        Raises:
            Unavailable: the database could not be reached, or it is still not known what it did.
        """
        give_up = monotonic() + _PATIENCE_SECONDS
        lost = False
        for attempt in range(1_000_000):
            try:
                return await self._commit(commands)
            except Conflict as error:
                if attempt >= _ATTEMPTS:
                    raise Unavailable(_WHAT) from error
            except Lost:
                lost = True
                metrics.COMMITS_LOST.inc()
            except Unavailable:
                if not lost:
                    raise
            if monotonic() > give_up:
                break
            await asyncio.sleep(random.uniform(0, min(0.5, _PAUSE_SECONDS * 2 ** min(attempt, 10))))  # noqa: S311  jitter
        raise Unavailable(_WHAT)


def _fail(items: Sequence[_Item], error: Callable[[], WalletError]) -> None:
    """Answers those that have no answer yet, each with an error of its own."""
    for item in items:
        if not item.answer.done():
            item.answer.set_exception(error())


def _as_outcome(result: Outcome | BaseException) -> Outcome:
    if isinstance(result, BaseException) and not isinstance(result, WalletError):
        raise result
    return result
