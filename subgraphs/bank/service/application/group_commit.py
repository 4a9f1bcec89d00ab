"""Group commit: concurrent commands meet in batches. While one batch commits, the next one collects.

There is no timer: a lone command is a batch of one, at once; under load batches grow by themselves. Only a full batch
does not wait for the one before it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from time import monotonic
from typing import Final, Protocol

import structlog
from opentelemetry.trace import SpanKind

from kit.runtime.backoff import Backoff
from kit.telemetry import tracing
from subgraphs.bank.service import metrics
from subgraphs.bank.service.adapters.postgres.batch import Conflict, Lost
from subgraphs.bank.service.domain.model import Command, Outcome
from wallet.errors import DeadlineExceeded, InternalError, ResourceExhausted, Unavailable

log = structlog.get_logger(__name__)


class Commit(Protocol):
    """Decides and commits commands in one transaction: an outcome each, or an exception for all of them."""

    def __call__(self, commands: Sequence[Command], /, *, locking: bool) -> Awaitable[Sequence[Outcome]]:
        """See `Ledger.commit`."""


_BATCH: Final = 500
_LANES: Final = 2
"""Batches at once, as long as full ones wait: Python decides on one while PostgreSQL writes the other."""
_WAITING: Final = 20_000
_CONFLICTS: Final = 8
_FIRST_PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 8.0
"""How long a batch is run again for whose commit was not answered. Longer than a session of a frozen process lives."""
_WHAT: Final = "the ledger"
_SPAN: Final[tracing.Attributes] = {"db.system.name": "postgresql", "db.operation.name": "commit"}


class _Call:
    """One caller's commands on their way. A caller who goes away cancels `answered`, and nothing else."""

    __slots__ = ("answered", "commands", "deadline", "lacking", "outcomes", "since", "taken")

    def __init__(self, commands: Sequence[Command], deadline: float | None) -> None:
        self.commands = commands
        self.deadline = deadline
        self.since = monotonic()
        self.taken = 0
        self.lacking = len(commands)
        self.outcomes: list[Outcome | None] = [None] * len(commands)
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def waiting(self) -> int:
        """How many of the commands no batch has taken yet."""
        return len(self.commands) - self.taken

    def take(self, most: int) -> list["_Item"]:
        """The next of the commands."""
        first, self.taken = self.taken, min(self.taken + most, len(self.commands))
        return [_Item(self, place) for place in range(first, self.taken)]

    def answer(self, place: int, outcome: Outcome) -> None:
        """Gives one command its outcome, unless it has one."""
        if self.outcomes[place] is None:
            self.outcomes[place] = outcome
            self.lacking -= 1
            if not self.lacking and not self.answered.done():
                self.answered.set_result(None)

    def answer_all(self, outcome: Outcome) -> None:
        """Gives every command that has none this outcome."""
        for place in range(len(self.commands)):
            self.answer(place, outcome)


class _Item:
    """One command of a call."""

    __slots__ = ("call", "place")

    def __init__(self, call: _Call, place: int) -> None:
        self.call = call
        self.place = place

    @property
    def command(self) -> Command:
        return self.call.commands[self.place]

    def answer(self, outcome: Outcome) -> None:
        self.call.answer(self.place, outcome)


class Pipeline:
    """Takes commands from many callers and commits them in batches: one at a time, two where full ones wait.

    Each command gets its own outcome: a refusal, or a command that the database will not take, never touches its
    neighbours. When a commit's answer is lost, the batch is run again with the same keys until it is known what became
    of it; what cannot be known in time is Unavailable, never a refusal.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._single: deque[_Call] = deque()
        self._bulk: deque[_Call] = deque()
        self._waiting = 0  # commands that no batch has taken
        self._held = 0  # those among them whose call has others in a batch
        self._committing = 0  # batches
        self._arrived = asyncio.Event()

    async def submit(self, command: Command, deadline: float | None) -> Outcome:
        """What came of one command; see `submit_all`."""
        return (await self._submitted(self._single, [command], deadline))[0]

    async def submit_all(self, commands: Sequence[Command], deadline: float | None) -> list[Outcome]:
        """What came of each command, in order.

        Args:
            commands: checked ones.
            deadline: on the monotonic clock, when the caller stops waiting. A command that a batch has taken is never
                dropped.

        Returns:
            For each the transfer or its refusal, both committed with its key and answered again on every replay; or
            DeadlineExceeded: it still waited then, nothing was done; or Unavailable: it is not known what was done,
            submitting the same key again is safe; or InternalError: the database will not take it.

        Raises:
            ResourceExhausted: too many commands wait already; nothing was done.
        """
        return await self._submitted(self._bulk, commands, deadline) if commands else []

    async def _submitted(
        self, queue: deque[_Call], commands: Sequence[Command], deadline: float | None
    ) -> list[Outcome]:
        if self._waiting + len(commands) > _WAITING:
            metrics.SHED.inc(len(commands))
            raise ResourceExhausted
        call = _Call(commands, deadline)
        queue.append(call)
        self._waiting += len(commands)
        self._arrived.set()
        await call.answered
        return [outcome for outcome in call.outcomes if outcome is not None]

    async def run(self) -> None:
        """Commits batches for ever. Whoever has no answer yet when it is cancelled is told Unavailable."""
        try:
            async with asyncio.TaskGroup() as batches:
                while True:
                    await self._arrived.wait()
                    self._arrived.clear()
                    while batch := self._next():
                        self._committing += 1
                        batches.create_task(self._commit_batch(batch))
        finally:
            for call in (*self._single, *self._bulk):
                call.answer_all(Unavailable(_WHAT))

    async def _commit_batch(self, batch: Sequence[_Item]) -> None:
        metrics.BATCH_SIZE.observe(len(batch))
        metrics.BATCH_WAIT_SECONDS.observe(monotonic() - batch[0].call.since)
        calls = {item.call for item in batch}
        attributes: tracing.Attributes = {**_SPAN, "db.operation.batch.size": len(batch)}
        traceparents = [item.command.traceparent for item in batch]
        try:
            with tracing.start_batch_span(traceparents, "commit", SpanKind.CLIENT, attributes):
                await self._settle(batch)
        except asyncio.CancelledError:
            for call in calls:
                call.answer_all(Unavailable(_WHAT))
            raise
        for call in calls:
            if call.waiting:
                self._held -= call.waiting
                self._bulk.append(call)
        self._committing -= 1
        self._arrived.set()

    def _next(self) -> list[_Item]:
        """The batch to commit now: whatever waits, if none is being committed; else a full one, or nothing.

        Half of it is for single callers and half for bulk ones; what one half does not need is the other's. A bulk
        caller has commands in one batch at a time, so that they are decided in their order, and then lets others go
        first.
        """
        if self._committing and (self._committing == _LANES or self._waiting - self._held < _BATCH):
            return []
        self._drop_unwanted(self._single)
        self._drop_unwanted(self._bulk)
        in_bulk = self._waiting - self._held - len(self._single)
        batch: list[_Item] = []
        for _ in range(min(len(self._single), max(_BATCH // 2, _BATCH - in_bulk))):
            batch.extend(self._single.popleft().take(1))
        while self._bulk and len(batch) < _BATCH:
            call = self._bulk.popleft()
            batch.extend(call.take(_BATCH - len(batch)))
            self._held += call.waiting
        self._waiting -= len(batch)
        return batch

    def _drop_unwanted(self, queue: deque[_Call]) -> None:
        """Forgets what nobody waits for any more."""
        now = monotonic()
        for _ in range(len(queue)):
            call = queue.popleft()
            if call.answered.done() or (call.deadline is not None and call.deadline <= now):
                self._waiting -= call.waiting
                for place in range(call.taken, len(call.commands)):
                    call.answer(place, DeadlineExceeded(_WHAT))
            else:
                queue.append(call)

    async def _settle(self, batch: Sequence[_Item]) -> None:
        """Commits the commands and answers each of them, whatever happens."""
        try:
            outcomes = await self._until_known([item.command for item in batch])
        except Unavailable as error:
            outcomes = [error] * len(batch)
        except Exception as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._settle(batch[:middle])
                await self._settle(batch[middle:])
                return
            log.error(
                "the database will not take a command", transfer=str(batch[0].command.transfer_id), exc_info=error
            )
            outcomes = [InternalError()]
        for item, outcome in zip(batch, outcomes, strict=True):
            item.answer(outcome)

    async def _until_known(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        """Commits the commands, again and again while another transaction was first or the answer was lost.

        Raises:
            Unavailable: the database could not be reached, or it is still not known what it did.
        """
        give_up = monotonic() + _PATIENCE_SECONDS
        conflicts, lost = 0, False
        locking = len(commands) > 1
        backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        while True:
            try:
                return await self._commit(commands, locking=locking)
            except Conflict:
                conflicts += 1
                if conflicts > _CONFLICTS:
                    raise Unavailable(_WHAT) from None
            except Lost:
                lost = True
                metrics.COMMITS_LOST.inc()
            except Unavailable:
                if not lost:
                    raise
            locking = True
            if monotonic() > give_up:
                raise Unavailable(_WHAT)
            await asyncio.sleep(backoff.next_delay())
