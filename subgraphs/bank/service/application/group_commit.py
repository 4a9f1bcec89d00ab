"""Group commit: commands of concurrent callers are committed together in batches.

A batch does not wait for more commands. If no batch is running, a single command is committed at once as a batch of
one. Commands that arrive while a batch commits form the next batch, so batches grow under load. While one batch
commits, only a full batch may start; at most two batches commit at the same time.
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
from subgraphs.bank.service.adapters.postgres.batch import CommitOutcomeUnknown, Conflict
from subgraphs.bank.service.domain.model import Command, Outcome
from wallet.errors import DeadlineExceeded, InternalError, ResourceExhausted, Unavailable

log = structlog.get_logger(__name__)


class Commit(Protocol):
    """Commits commands in one transaction. Returns an outcome for each, or raises one exception for all."""

    def __call__(self, commands: Sequence[Command], /, *, locking: bool) -> Awaitable[Sequence[Outcome]]:
        """See `Ledger.commit`."""


_BATCH_SIZE: Final = 500
_LANES: Final = 2
"""Maximum number of concurrent batches; the second must be full. Python decides one batch while PostgreSQL writes the
other.
"""
_QUEUE_SIZE: Final = 20_000  # commands
_MAX_CONFLICTS: Final = 8
_FIRST_PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 0.5
_COMMIT_TIMEOUT_SECONDS: Final = 8.0
"""Maximum time for which a batch is repeated after conflicts or unknown outcomes. It is longer than the time for which
PostgreSQL keeps the idle transaction of a frozen bank process.
"""
_DEPENDENCY: Final = "the ledger"  # in error messages
_SPAN: Final[tracing.Attributes] = {"db.system.name": "postgresql", "db.operation.name": "commit"}


class _Submission:
    """Commands of one caller. If the caller stops waiting, only the future `answered` is cancelled."""

    __slots__ = ("answered", "commands", "deadline", "outcomes", "queued_at", "taken", "unanswered")

    def __init__(self, commands: Sequence[Command], deadline: float | None) -> None:
        self.commands = commands
        self.deadline = deadline
        self.queued_at = monotonic()
        self.taken = 0
        self.unanswered = len(commands)
        self.outcomes: list[Outcome | None] = [None] * len(commands)
        self.answered: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()

    @property
    def queued(self) -> int:
        """Number of commands that no batch has taken yet."""
        return len(self.commands) - self.taken

    def take(self, limit: int) -> list["_Item"]:
        """Take the next commands, at most `limit`."""
        first, self.taken = self.taken, min(self.taken + limit, len(self.commands))
        return [_Item(self, index) for index in range(first, self.taken)]

    def answer(self, index: int, outcome: Outcome) -> None:
        """Set the outcome of one command, unless it has one."""
        if self.outcomes[index] is None:
            self.outcomes[index] = outcome
            self.unanswered -= 1
            if not self.unanswered and not self.answered.done():
                self.answered.set_result([each for each in self.outcomes if each is not None])

    def answer_all(self, outcome: Outcome) -> None:
        """Set the outcome of every command that has none."""
        for index in range(len(self.commands)):
            self.answer(index, outcome)


class _Item:
    """One command of a submission."""

    __slots__ = ("index", "submission")

    def __init__(self, submission: _Submission, index: int) -> None:
        self.submission = submission
        self.index = index

    @property
    def command(self) -> Command:
        return self.submission.commands[self.index]

    def answer(self, outcome: Outcome) -> None:
        self.submission.answer(self.index, outcome)


class Pipeline:
    """Queues commands of many callers and commits them in batches: one batch at a time, or two if the second is full.

    Each command gets its own outcome. A refusal, or a command that the database rejects, never affects other commands
    of its batch. If the outcome of a commit is unknown, the batch is run again with the same keys until the outcome is
    known. If it is still unknown at the time-out, the commands get Unavailable, never a refusal.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._single: deque[_Submission] = deque()
        self._bulk: deque[_Submission] = deque()
        self._queued = 0  # commands that no batch has taken
        self._held = 0  # queued commands of submissions that have other commands in a running batch
        self._committing = 0  # running batches
        self._changed = asyncio.Event()

    async def submit(self, command: Command, deadline: float | None) -> Outcome:
        """Commit one command and return its outcome; see `submit_all`."""
        return (await self._enqueue(self._single, [command], deadline))[0]

    def start(self, command: Command, deadline: float | None) -> "asyncio.Future[list[Outcome]]":
        """Queue one command, and return the future of its outcome: a list of one; see `submit_all`.

        A cancelled future drops the command if no batch has taken it.

        Raises:
            ResourceExhausted: the queue is full; nothing was committed.
        """
        return self._enqueue(self._single, [command], deadline)

    async def submit_all(self, commands: Sequence[Command], deadline: float | None) -> list[Outcome]:
        """Commit commands and return their outcomes, in order.

        Args:
            commands: commands that passed `rules.check`.
            deadline: time on the monotonic clock at which the caller stops waiting; None for no deadline. A command
                that a batch has taken is never dropped.

        Returns:
            For each command one of:
            a transfer or a refusal, committed with the key and returned on every replay;
            IdempotencyConflict: a different request has used the key, nothing was committed;
            DeadlineExceeded: the deadline passed in the queue, nothing was committed;
            Unavailable: the outcome is unknown, submitting the same key again is safe;
            InternalError: the database rejects the command.

        Raises:
            ResourceExhausted: the queue is full; nothing was committed.
        """
        return await self._enqueue(self._bulk, commands, deadline) if commands else []

    def _enqueue(
        self, queue: deque[_Submission], commands: Sequence[Command], deadline: float | None
    ) -> "asyncio.Future[list[Outcome]]":
        if self._queued + len(commands) > _QUEUE_SIZE:
            metrics.COMMANDS_REJECTED.inc(len(commands))
            raise ResourceExhausted
        submission = _Submission(commands, deadline)
        queue.append(submission)
        self._queued += len(commands)
        self._changed.set()
        return submission.answered

    async def run(self) -> None:
        """Commit batches until cancelled. On cancellation every unanswered command gets Unavailable."""
        try:
            async with asyncio.TaskGroup() as batches:
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    while batch := self._next_batch():
                        self._committing += 1
                        batches.create_task(self._commit_batch(batch))
        finally:
            for submission in (*self._single, *self._bulk):
                submission.answer_all(Unavailable(_DEPENDENCY))

    async def _commit_batch(self, batch: Sequence[_Item]) -> None:
        metrics.BATCH_SIZE.observe(len(batch))
        metrics.BATCH_WAIT_SECONDS.observe(monotonic() - batch[0].submission.queued_at)
        submissions = {item.submission for item in batch}
        attributes: tracing.Attributes = {**_SPAN, "db.operation.batch.size": len(batch)}
        traceparents = [item.command.traceparent for item in batch]
        try:
            with tracing.start_batch_span(traceparents, "commit", SpanKind.CLIENT, attributes):
                await self._commit_and_answer(batch)
        except asyncio.CancelledError:
            for submission in submissions:
                submission.answer_all(Unavailable(_DEPENDENCY))
            raise
        for submission in submissions:
            if submission.queued:
                self._held -= submission.queued
                self._bulk.append(submission)
        self._committing -= 1
        self._changed.set()

    def _next_batch(self) -> list[_Item]:
        """Return the next batch. While another batch is running, return a full batch or nothing.

        Half of a batch is for single commands and half for bulk submissions. If one kind does not fill its half, the
        other kind may use the rest. A bulk submission has commands in only one running batch, so that its commands are
        decided in order. After that batch, the submission goes to the end of the queue.
        """
        if self._committing and (self._committing == _LANES or self._queued - self._held < _BATCH_SIZE):
            return []
        self._drop_expired(self._single)
        self._drop_expired(self._bulk)
        bulk_commands = self._queued - self._held - len(self._single)
        batch: list[_Item] = []
        for _ in range(min(len(self._single), max(_BATCH_SIZE // 2, _BATCH_SIZE - bulk_commands))):
            batch.extend(self._single.popleft().take(1))
        while self._bulk and len(batch) < _BATCH_SIZE:
            submission = self._bulk.popleft()
            batch.extend(submission.take(_BATCH_SIZE - len(batch)))
            self._held += submission.queued
        self._queued -= len(batch)
        return batch

    def _drop_expired(self, queue: deque[_Submission]) -> None:
        """Drop the submissions whose caller was cancelled or whose deadline has passed."""
        now = monotonic()
        for _ in range(len(queue)):
            submission = queue.popleft()
            if submission.answered.done() or (submission.deadline is not None and submission.deadline <= now):
                self._queued -= submission.queued
                for index in range(submission.taken, len(submission.commands)):
                    submission.answer(index, DeadlineExceeded(_DEPENDENCY))
            else:
                queue.append(submission)

    async def _commit_and_answer(self, batch: Sequence[_Item]) -> None:
        """Commit the commands and set the outcome of each, also on errors. If the database rejects a batch, commit its
        two halves separately.
        """
        try:
            outcomes = await self._commit_until_known([item.command for item in batch])
        except Unavailable as error:
            outcomes = [error] * len(batch)
        except Exception as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._commit_and_answer(batch[:middle])
                await self._commit_and_answer(batch[middle:])
                return
            log.error("command rejected by the database", transfer=str(batch[0].command.transfer_id), exc_info=error)
            outcomes = [InternalError()]
        for item, outcome in zip(batch, outcomes, strict=True):
            item.answer(outcome)

    async def _commit_until_known(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        """Commit the commands. Repeat after a conflict and while the outcome of a commit is unknown.

        Raises:
            Unavailable: the database is unreachable, there were too many conflicts, or the outcome is still unknown at
                the time-out.
        """
        give_up_at = monotonic() + _COMMIT_TIMEOUT_SECONDS
        conflicts, is_unknown = 0, False
        locking = len(commands) > 1
        backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        while True:
            try:
                return await self._commit(commands, locking=locking)
            except Conflict:
                conflicts += 1
                if conflicts > _MAX_CONFLICTS:
                    raise Unavailable(_DEPENDENCY) from None
            except CommitOutcomeUnknown:
                is_unknown = True
                metrics.COMMIT_OUTCOMES_UNKNOWN.inc()
            except Unavailable:
                if not is_unknown:
                    raise
            locking = True
            if monotonic() > give_up_at:
                raise Unavailable(_DEPENDENCY)
            await asyncio.sleep(backoff.next_delay())
