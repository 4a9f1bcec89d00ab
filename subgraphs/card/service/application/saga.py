"""Drives top-ups to their end: for the caller who waits, and for whoever's process died."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from subgraphs.card.service import metrics
from subgraphs.card.service.adapters.acquirer import Acquirer
from subgraphs.card.service.adapters.bank_ledger import Ledger
from subgraphs.card.service.adapters.repository import LeaseLostError, Repository
from subgraphs.card.service.domain import transitions
from subgraphs.card.service.domain.rules import Limits
from subgraphs.card.service.domain.top_up import FINAL, Payment, Refusal, Result, Status, Step, TopUp, Unknown, Wish
from wallet.errors import TopUpNotFound, WalletError

log = structlog.get_logger(__name__)

_MEASURE_SECONDS: Final = 2.0
_GRACE_SECONDS: Final = 3.0
"""How long the steps that are being taken may go on when the process stops. What is left is the next one's."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When things are done.

    Attributes:
        interval_seconds: how often the completer looks for what is due.
        lease_seconds: how long a top-up is its driver's, who renews the lease while a step is being taken: so long does
            a top-up rest whose driver has died.
        first_pause_seconds: after the first attempt at a step whose outcome is not known, at most; doubled by each.
        longest_pause_seconds: after any.
        authorization_window_seconds: how long after it was asked for a card may be charged.
        captures: how many may end unknown before the sum is let go of.
        drivers: how many top-ups the completer drives at once, besides those that callers have begun.
    """

    interval_seconds: float = 1.0
    lease_seconds: float = 3.0
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 30.0
    authorization_window_seconds: float = 60.0
    captures: int = 8
    drivers: int = 64


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


class Saga:
    """The only one who changes a top-up after its creation.

    The row says, before each call, which call is made; so whoever finds it can make the same call again, by the same
    key. A driver has the row for a lease. When it loses it, two may make the same calls for a while: one of them saves
    what came of it first, and the other stops.
    """

    def __init__(
        self,
        repository: Repository,
        acquirer: Acquirer,
        ledger: Ledger,
        timing: Timing = Timing(),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._repository = repository
        self._acquirer = acquirer
        self._ledger = ledger
        self._timing = timing
        self._clock = clock
        self._driven: dict[UUID, asyncio.Task[TopUp]] = {}
        self._taken_up: set[asyncio.Task[TopUp]] = set()
        self._leased: dict[UUID, int] = {}
        self._woken = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """For as long as top-ups may be driven. At the end, the steps that are being taken have some seconds."""
        try:
            yield
        finally:
            tasks = list(self._driven.values())
            if tasks:
                await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def begin(self, wish: Wish, limits: Limits) -> TopUp:
        """The top-up of the wish's key, as it is there or newly made; it is driven, by this saga unless by another.

        Raises:
            IdempotencyConflict, InvalidInput, TopUpLimitExceeded: as `Repository.admit`.
        """
        lease_seconds = self._timing.lease_seconds
        top_up = await self._repository.admit(wish, limits, lease_seconds=lease_seconds)
        if top_up.id == wish.id:
            self.start(top_up)
        elif top_up.is_under_way:
            for due in await self._repository.claim(1, lease_seconds=lease_seconds, id_=top_up.id):
                self.start(due)
        return top_up

    def start(self, top_up: TopUp) -> asyncio.Task[TopUp]:
        """Drives a top-up, which the caller has leased, whatever becomes of the caller."""
        if top_up.id not in self._driven:
            task = asyncio.create_task(self._supervise(top_up), name=f"top-up {top_up.id}")
            self._driven[top_up.id] = task
            task.add_done_callback(lambda _: self._driven.pop(top_up.id))
        return self._driven[top_up.id]

    async def paused(self, top_up: TopUp) -> TopUp:
        """The top-up when this saga does nothing with it any more: as it was left, or as given if not driven here.
        Cancelling this leaves the drive alone.
        """
        task = self._driven.get(top_up.id)
        return top_up if task is None else await asyncio.shield(task)

    def wake(self) -> None:
        """Has the completer look now: something may be due."""
        self._woken.set()

    async def complete(self) -> None:
        """Drives whatever is due, for ever: what a pause is over for, and what a process died over.

        Raises:
            Unavailable: the database is away.
        """
        while True:
            self._woken.clear()
            room = self._timing.drivers - len(self._taken_up)  # callers take none of it, however many they are
            if room > 0:
                for top_up in await self._repository.claim(room, lease_seconds=self._timing.lease_seconds):
                    metrics.TAKEN_OVER.inc()
                    task = self.start(top_up)
                    self._taken_up.add(task)
                    task.add_done_callback(self._taken_up.discard)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.interval_seconds):
                    await self._woken.wait()

    async def hold(self) -> None:
        """Renews the leases of all that is being driven, for ever.

        Raises:
            Unavailable: the database is away.
        """
        lease_seconds = self._timing.lease_seconds
        while True:
            await asyncio.sleep(lease_seconds / 3)
            if self._leased:
                await self._repository.renew(self._leased, lease_seconds=lease_seconds)

    async def measure(self) -> None:
        """Tells what is under way and what a person has to look at, for ever, whoever drives it.

        Raises:
            Unavailable: the database is away.
        """
        while True:
            tallies = {tally.status: tally for tally in await self._repository.tallies()}
            for status in Status:
                if status not in FINAL:
                    metrics.OPEN.labels(status).set(tallies[status].count if status in tallies else 0)
            under_way = [tally for status, tally in tallies.items() if status not in {*FINAL, Status.NEEDS_REVIEW}]
            metrics.OLDEST_SECONDS.set(max((tally.oldest_seconds for tally in under_way), default=0))
            metrics.TO_REVIEW.set(sum(tally.to_review for tally in tallies.values()))
            await asyncio.sleep(_MEASURE_SECONDS)

    async def retry(self, id_: UUID) -> TopUp:
        """A top-up that a person has looked at, due now: back at the step that it stopped in, or, if it is final, to be
        compared with the acquirer's payment again.

        Raises:
            TopUpNotFound: nobody has to look at such a one.
            LeaseLostError: somebody else has changed it meanwhile.
            Unavailable: the database is away.
        """
        top_up = (await self._repository.get([id_])).get(id_)
        if top_up is None or top_up.review is None:
            raise TopUpNotFound(str(id_))
        retried = await self._repository.save(transitions.retried(top_up), due_seconds=0)
        self.wake()
        return retried

    async def drive(self, top_up: TopUp) -> TopUp:
        """Takes step after step, until the top-up is final, has to wait, or needs a person.

        Args:
            top_up: leased to this driver. A final one is compared with the acquirer's payment.

        Raises:
            LeaseLostError: somebody else drives it.
            Unavailable: the database is away; the step will be taken again, by whoever finds the row.
        """
        self._leased[top_up.id] = top_up.version
        try:
            return await (self._verify(top_up) if top_up.is_final else self._advance(top_up))
        finally:
            del self._leased[top_up.id]

    async def _advance(self, top_up: TopUp) -> TopUp:
        while top_up.is_under_way:
            result = await self._take(top_up)
            after = transitions.after(top_up, result, captures=self._timing.captures)
            after = await self._repository.save(after, due_seconds=self._due_seconds(after))
            self._tell(top_up, result, after)
            top_up = after
            if top_up.attempts:
                break
            self._leased[top_up.id] = top_up.version
        return top_up

    async def _supervise(self, top_up: TopUp) -> TopUp:
        try:
            with metrics.DRIVEN.track_inprogress():
                return await self.drive(top_up)
        except LeaseLostError:
            metrics.LEASES_LOST.inc()
        except WalletError as error:
            log.warning("a top-up is left to the completer", top_up_id=str(top_up.id), error=error.message)
        except Exception:
            log.exception("a top-up could not be driven", top_up_id=str(top_up.id))
        return top_up

    async def _take(self, top_up: TopUp) -> Result:  # noqa: PLR0911  a table: a line a step
        """One step: what came of it."""
        try:
            match top_up.step:
                case Step.AUTHORIZE:
                    return await self._authorize(top_up)
                case Step.RESOLVE:
                    return await self._acquirer.find(top_up.authorization_key)
                case Step.CANCEL:
                    return await self._acquirer.cancel(top_up.authorization_key)
                case Step.DEPOSIT:
                    return await self._ledger.deposit(top_up)
                case Step.CAPTURE:
                    # A void is kinder than a refund.
                    return await self._ledger.check(top_up) or await self._change(top_up, self._acquirer.capture)
                case Step.VOID:
                    return await self._change(top_up, self._acquirer.void)
                case _:
                    return await self._change(top_up, self._acquirer.refund)
        except WalletError as error:
            log.warning(
                "the outcome of a step is not known", top_up_id=str(top_up.id), step=top_up.step, error=error.message
            )
            return Unknown()

    async def _authorize(self, top_up: TopUp) -> Result:
        if not transitions.may_authorize(top_up, self._clock(), self._timing.authorization_window_seconds):
            return Unknown()
        return await self._acquirer.authorize(top_up.authorization_key, top_up.card, top_up.amount, str(top_up.id))

    async def _change(
        self, top_up: TopUp, change: Callable[[str, str], Awaitable[Payment | Refusal]]
    ) -> Payment | Refusal:
        assert top_up.payment_id is not None  # noqa: S101  every step that changes a payment comes after one is known
        assert top_up.step is not None  # noqa: S101  it is under way
        return await change(top_up.payment_id, top_up.acquirer_key(top_up.step))

    async def _verify(self, top_up: TopUp) -> TopUp:
        try:
            payment = await self._acquirer.find(top_up.authorization_key)
        except WalletError:
            return top_up  # still leased, and due again when that is over
        after = transitions.verified(top_up, payment)
        if after.review:
            log.error("the acquirer contradicts a final top-up", top_up_id=str(top_up.id), review=after.review)
        return await self._repository.save(after, due_seconds=None)

    def _due_seconds(self, top_up: TopUp) -> float | None:
        """When somebody else may take the top-up: never, after a pause, or when this driver's lease is over."""
        if not top_up.is_under_way:
            return None
        if not top_up.attempts:
            return self._timing.lease_seconds
        return transitions.backoff(
            top_up.attempts,
            random.random(),  # noqa: S311  spreads retries, keeps no secret
            first_seconds=self._timing.first_pause_seconds,
            longest_seconds=self._timing.longest_pause_seconds,
        )

    def _tell(self, top_up: TopUp, result: Result, after: TopUp) -> None:
        metrics.STEPS.labels(top_up.step, type(result).__name__).inc()
        if after.status is top_up.status:
            return
        metrics.TOP_UPS.labels(after.status).inc()
        if after.status is Status.NEEDS_REVIEW:
            log.error("a top-up needs a person", top_up_id=str(after.id), step=after.step, review=after.review)
        elif after.is_final:
            log.info("a top-up has ended", top_up_id=str(after.id), status=after.status, failure=after.failure)
