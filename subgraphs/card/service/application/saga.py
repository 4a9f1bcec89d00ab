"""Saga of a top-up: calls step after step until the top-up is final, even if a process dies meanwhile.

A driver is a task that makes the calls of one top-up; below, "drive" means to make these calls. The completer is the
background task that starts drivers for unfinished top-ups without a driver.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from subgraphs.card.service import metrics
from subgraphs.card.service.adapters.acquirer import Acquirer, on_behalf_of
from subgraphs.card.service.adapters.bank_ledger import BankLedger
from subgraphs.card.service.adapters.repository import LeaseLostError, Repository
from subgraphs.card.service.domain import declines, transitions
from subgraphs.card.service.domain.payment import NoPayment, Payment, Refusal
from subgraphs.card.service.domain.rules import Limits
from subgraphs.card.service.domain.top_up import FINAL_STATUSES, NewTopUp, Status, Step, TopUp
from subgraphs.card.service.domain.transitions import Result, Unknown
from wallet.errors import TopUpNotFound, WalletError

log = structlog.get_logger(__name__)

_METRICS_INTERVAL_SECONDS: Final = 2.0
_CONCURRENT_BANK_CALLS: Final = 8
_SCAN_PAGE_SIZE: Final = 500
_SHUTDOWN_GRACE_SECONDS: Final = 3.0
"""Time that running steps get to finish at shutdown. Another process continues the unfinished top-ups."""


@dataclass(frozen=True, slots=True)
class SagaLimits:
    """Time and size limits of the saga.

    Attributes:
        interval_seconds: interval at which the completer takes due top-ups.
        lease_seconds: duration of a lease. The driver renews the lease while a step runs. If the driver dies, another
            process continues the top-up after the lease.
        first_pause_seconds: maximum delay after the first attempt with an unknown outcome. This maximum doubles with
            each further attempt.
        longest_pause_seconds: limit of the growing maximum delay.
        authorization_window_seconds: time after the creation of a top-up in which its card may be authorized.
        capture_seconds: time after the last save in which a capture may follow its authorization before the result of
            the authorization is saved. It is well below the lease, so that usually no other driver has the top-up.
        max_captures: number of captures with an unknown outcome after which the amount is released.
        drivers: maximum number of top-ups that the completer drives concurrently. Top-ups that a request drives are not
            counted.
    """

    interval_seconds: float = 1.0
    lease_seconds: float = 3.0
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 30.0
    authorization_window_seconds: float = 60.0
    capture_seconds: float = 1.0
    max_captures: int = 8
    drivers: int = 64

    def __post_init__(self) -> None:
        """Refuse delays that `transitions.MAX_DELAY_SECONDS` does not allow.

        Raises:
            ValueError: a lease or a retry delay is too long.
        """
        if 2 * max(self.lease_seconds, self.longest_pause_seconds) > transitions.MAX_DELAY_SECONDS:
            raise ValueError(f"leases and retry delays must not exceed {transitions.MAX_DELAY_SECONDS / 2} seconds")


@dataclass(frozen=True, slots=True)
class _Change:
    """Change of a top-up by the result of one step."""

    before: TopUp
    result: Result
    after: TopUp


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


class Saga:
    """Changes the states of top-ups after their creation. No other component changes these states.

    The row stores the next call before the call is made, so any process can repeat the call with the same key. The
    exception is a capture, which may directly follow its authorization (`transitions.may_save_later`). A driver leases
    the row: for a few seconds, no other driver takes it. If a driver loses its lease, two drivers may make the same
    calls for a while. The driver that saves its result first continues, and the other driver stops.
    """

    def __init__(
        self,
        repository: Repository,
        acquirer: Acquirer,
        ledger: BankLedger,
        limits: SagaLimits = SagaLimits(),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._repository = repository
        self._acquirer = acquirer
        self._ledger = ledger
        self._limits = limits
        self._clock = clock
        self._drivers: dict[UUID, asyncio.Task[TopUp]] = {}
        self._completer_drivers: set[asyncio.Task[TopUp]] = set()
        self._leased_versions: dict[UUID, int] = {}
        self._wake_requested = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Stop the drivers at the end of the block. Running steps get some seconds to finish, then are cancelled."""
        try:
            yield
        finally:
            tasks = list(self._drivers.values())
            if tasks:
                await asyncio.wait(tasks, timeout=_SHUTDOWN_GRACE_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def begin(self, new: NewTopUp, limits: Limits) -> TopUp:
        """Return the top-up with the request's idempotency key, and start to drive it. Create it if the key is new.

        An existing top-up is driven only if no other driver has leased it.

        Raises:
            IdempotencyConflict, InvalidInput, TopUpLimitExceeded: see `Repository.admit`.
        """
        lease_seconds = self._limits.lease_seconds
        top_up = await self._repository.admit(new, limits, lease_seconds=lease_seconds)
        if top_up.id == new.id:
            self.start(top_up)
        else:
            await self.resume(top_up)
        return top_up

    async def resume(self, top_up: TopUp) -> None:
        """Drive a top-up if it is in progress and no other driver has leased it."""
        if top_up.is_in_progress:
            for claimed in await self._repository.claim(1, lease_seconds=self._limits.lease_seconds, id_=top_up.id):
                self.start(claimed)

    def start(self, top_up: TopUp) -> asyncio.Task[TopUp]:
        """Drive a leased top-up in a task, independently of the caller."""
        if top_up.id not in self._drivers:
            task = asyncio.create_task(self._drive_and_log_errors(top_up), name=f"top-up {top_up.id}")
            self._drivers[top_up.id] = task
            task.add_done_callback(lambda _: self._drivers.pop(top_up.id))
        return self._drivers[top_up.id]

    async def wait_for_driver(self, top_up: TopUp) -> TopUp:
        """Wait until the top-up's driver in this process ends, and return the top-up in its new state.

        If no driver of this process has the top-up, return `top_up` at once.

        Cancelling the wait does not cancel the driver.
        """
        task = self._drivers.get(top_up.id)
        return top_up if task is None else await asyncio.shield(task)

    def wake_completer(self) -> None:
        """Let the completer take due top-ups now."""
        self._wake_requested.set()

    async def run_completer(self) -> None:
        """Drive due top-ups periodically: those whose retry delay is over, and those whose lease has expired.

        Raises:
            Unavailable: the database is unavailable.
        """
        while True:
            self._wake_requested.clear()
            capacity = self._limits.drivers - len(self._completer_drivers)  # drivers of requests do not count
            if capacity > 0:
                for top_up in await self._repository.claim(capacity, lease_seconds=self._limits.lease_seconds):
                    metrics.TOP_UPS_RESUMED.inc()
                    task = self.start(top_up)
                    self._completer_drivers.add(task)
                    task.add_done_callback(self._completer_drivers.discard)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.interval_seconds):
                    await self._wake_requested.wait()

    async def renew_leases(self) -> None:
        """Periodically renew the leases of all top-ups that have a driver in this process.

        Raises:
            Unavailable: the database is unavailable.
        """
        lease_seconds = self._limits.lease_seconds
        while True:
            await asyncio.sleep(lease_seconds / 3)
            if self._leased_versions:
                await self._repository.renew_leases(self._leased_versions, lease_seconds=lease_seconds)

    async def update_metrics(self) -> None:
        """Periodically set the gauges of open top-ups, counted over all replicas.

        Raises:
            Unavailable: the database is unavailable.
        """
        while True:
            by_status = {group.status: group for group in await self._repository.count_open()}
            for status in Status:
                if status not in FINAL_STATUSES:
                    metrics.OPEN.labels(status).set(by_status[status].count if status in by_status else 0)
            stopped = {*FINAL_STATUSES, Status.NEEDS_REVIEW}
            in_progress = [group for status, group in by_status.items() if status not in stopped]
            metrics.OLDEST_SECONDS.set(max((group.oldest_seconds for group in in_progress), default=0))
            metrics.TO_REVIEW.set(sum(group.to_review for group in by_status.values()))
            await asyncio.sleep(_METRICS_INTERVAL_SECONDS)

    async def retry(self, id_: UUID) -> TopUp:
        """Make a top-up due after a manual review, and return it without waiting for the next step.

        The top-up continues at the step at which it stopped. If it is final, its payment at the acquirer is checked
        again. If it is completed and the ledger lacks its deposit, the deposit is made again. But if the acquirer has
        refunded the payment, the top-up becomes refunded, and no deposit is made.

        Raises:
            TopUpNotFound: no top-up with this id needs a review.
            LeaseLostError: another driver has changed the top-up.
            Unavailable: the database is unavailable.
        """
        top_up = (await self._repository.get([id_])).get(id_)
        if top_up is None or top_up.review is None:
            raise TopUpNotFound(str(id_))
        retried = await self._repository.save(transitions.retry_reviewed(top_up), due_seconds=0)
        self.wake_completer()
        return retried

    async def review_missing_deposits(self) -> int:
        """Mark for review each completed top-up whose deposit the ledger lacks. Return the number of newly marked
        top-ups.

        The ledger may lack deposits after a restore from a backup. After another restore it may have them again: if the
        ledger has the deposit of a top-up under review, the top-up is compared with the acquirer's payment again, and
        stays under review only if they disagree. A retry is safe.

        Raises:
            LeaseLostError: a driver has changed a top-up meanwhile.
            Unavailable: the database or the acquirer is unavailable.
            WalletError: one of `TEMPORARY_ERRORS`: the bank is unavailable, late or overloaded.
        """
        slots, marked, last_id = asyncio.Semaphore(_CONCURRENT_BANK_CALLS), 0, None

        async def check(top_up: TopUp) -> int:
            if top_up.transfer_id is None:
                return 0
            async with slots:
                return await self._check_deposit(top_up, top_up.transfer_id)

        while page := await self._repository.list_after(last_id, _SCAN_PAGE_SIZE):
            last_id = page[-1].id
            marked += sum(await asyncio.gather(*map(check, page)))
        return marked

    async def _check_deposit(self, top_up: TopUp, transfer_id: UUID) -> int:
        """Compare a completed top-up with the ledger. Return 1 if this call marks it for review, else 0."""
        deposit_id = await self._ledger.find_deposit(top_up)
        if top_up.review is None and deposit_id != transfer_id:  # the database allows another deposit only under review
            top_up = await self._repository.save(transitions.review_missing_deposit(top_up), due_seconds=None)
            if deposit_id is None:
                log.error("deposit missing in the ledger", top_up_id=str(top_up.id), transfer_id=str(transfer_id))
                return 1
        if top_up.review is not None and deposit_id is not None:
            with on_behalf_of(top_up.key.principal):
                payment = await self._acquirer.find_payment(top_up.authorization_key)
            after = transitions.verify(replace(top_up, transfer_id=deposit_id), payment)
            if after != top_up:
                await self._repository.save(after, due_seconds=None)
                log.info("deposit found in the ledger", top_up_id=str(top_up.id), transfer_id=str(deposit_id))
        return 0

    async def drive(self, top_up: TopUp) -> TopUp:
        """Call step after step until the top-up is final, waits for a retry, or needs a review.

        Args:
            top_up: top-up that this driver has leased. If it is final, its payment at the acquirer is checked.

        Raises:
            LeaseLostError: another driver has saved the top-up.
            Unavailable: the database is unavailable; another driver will call the step again.
        """
        self._leased_versions[top_up.id] = top_up.version
        try:
            with on_behalf_of(top_up.key.principal):
                return await (self._verify(top_up) if top_up.is_final else self._advance(top_up))
        finally:
            del self._leased_versions[top_up.id]

    async def _advance(self, top_up: TopUp) -> TopUp:
        while top_up.is_in_progress:
            changes = await self._call_steps(top_up)
            after = changes[-1].after
            outcome = declines.attempt_outcome(top_up.status, after.status)
            top_up = await self._repository.save(after, due_seconds=self._due_seconds(after), outcome=outcome)
            for change in changes:
                self._record_step(change)
            if top_up.attempts:
                break
            self._leased_versions[top_up.id] = top_up.version
        return top_up

    async def _call_steps(self, top_up: TopUp) -> list["_Change"]:
        """Call steps until a result must be saved, and return the changes in order."""
        clock, changes = asyncio.get_running_loop().time, list[_Change]()
        save_at = clock() + self._limits.capture_seconds
        while True:
            result = await self._call_step(top_up)
            after = transitions.apply_result(top_up, result, max_captures=self._limits.max_captures)
            changes.append(_Change(top_up, result, after))
            if not transitions.may_save_later(top_up, after) or clock() >= save_at:
                return changes
            top_up = after

    async def _drive_and_log_errors(self, top_up: TopUp) -> TopUp:
        try:
            with metrics.TOP_UPS_IN_PROGRESS.track_inprogress():
                return await self.drive(top_up)
        except LeaseLostError:
            metrics.LEASES_LOST.inc()
        except WalletError as error:
            log.warning("top-up left to the completer", top_up_id=str(top_up.id), error=error.message)
        except Exception:
            log.exception("top-up driver failed", top_up_id=str(top_up.id))
        return top_up

    async def _call_step(self, top_up: TopUp) -> Result:  # noqa: PLR0911  one line for each step
        try:
            match top_up.step:
                case Step.AUTHORIZE:
                    return await self._authorize(top_up)
                case Step.RESOLVE:
                    return await self._acquirer.find_payment(top_up.authorization_key)
                case Step.CANCEL:
                    return await self._acquirer.cancel(top_up.authorization_key)
                case Step.DEPOSIT:
                    return await self._ledger.deposit(top_up)
                case Step.CAPTURE:
                    # Check the account first: a void now is better for the customer than a refund later.
                    refusal = await self._ledger.find_refusal(top_up)
                    return refusal or await self._change_payment(top_up, self._acquirer.capture)
                case Step.VOID:
                    return await self._change_payment(top_up, self._acquirer.void)
                case _:
                    return await self._change_payment(top_up, self._acquirer.refund)
        except WalletError as error:
            log.warning("step outcome unknown", top_up_id=str(top_up.id), step=top_up.step, error=error.message)
            return Unknown()

    async def _authorize(self, top_up: TopUp) -> Result:
        if not transitions.may_authorize(top_up, self._clock(), self._limits.authorization_window_seconds):
            return Unknown()
        return await self._acquirer.authorize(top_up.authorization_key, top_up.card, top_up.amount, str(top_up.id))

    async def _change_payment(
        self, top_up: TopUp, change: Callable[[str, str], Awaitable[Payment | Refusal]]
    ) -> Payment | Refusal:
        assert top_up.payment_id is not None  # noqa: S101  known at every step that changes a payment
        assert top_up.step is not None  # noqa: S101  a top-up in progress has a step
        return await change(top_up.payment_id, top_up.acquirer_key(top_up.step))

    async def _verify(self, top_up: TopUp) -> TopUp:
        try:
            payment = await self._acquirer.find_payment(top_up.authorization_key)
        except WalletError:
            return top_up  # the top-up is due again after the lease
        after = transitions.verify(top_up, payment)
        if top_up.review is not None and top_up.transfer_id is not None:
            try:
                deposit_id = await self._ledger.find_deposit(top_up)
                if deposit_id is None:
                    after = await self._settle_lost_deposit(after, payment)
                else:
                    after = replace(after, transfer_id=deposit_id)
            except WalletError:
                return top_up
        if after.review:
            log.error("final top-up needs review", top_up_id=str(top_up.id), review=after.review)
        return await self._repository.save(after, due_seconds=None)

    async def _settle_lost_deposit(self, top_up: TopUp, payment: Payment | NoPayment) -> TopUp:
        """Repeat the deposit that the ledger lacks, or end the top-up as refunded if its payment is refunded.

        The repeated deposit has the idempotency key of the lost one, so the bank credits the account only once.
        """
        if top_up.review is not None:
            after = transitions.refund_without_deposit(top_up, payment)
            if after.status is Status.REFUNDED:
                log.info("top-up ended", top_up_id=str(after.id), status=after.status, failure=after.failure)
            return after
        # Check the account first. The bank stores a refusal, which would be final even if the account is opened again.
        result = await self._ledger.find_refusal(top_up) or await self._ledger.deposit(top_up)
        after = transitions.after_second_deposit(top_up, result)
        if after.review is None:
            log.warning("deposit made again", top_up_id=str(top_up.id), transfer_id=str(after.transfer_id))
        return after

    def _due_seconds(self, top_up: TopUp) -> float | None:
        """Return the seconds until another driver may take the top-up: lease, retry delay, or None for never."""
        if not top_up.is_in_progress:
            return None
        if not top_up.attempts:
            return self._limits.lease_seconds
        return transitions.retry_delay(
            top_up.attempts,
            random.random(),  # noqa: S311  jitter, no secret
            first_seconds=self._limits.first_pause_seconds,
            longest_seconds=self._limits.longest_pause_seconds,
        )

    def _record_step(self, change: "_Change") -> None:
        after = change.after
        metrics.STEPS.labels(change.before.step, type(change.result).__name__).inc()
        if after.status is change.before.status:
            return
        metrics.TOP_UPS.labels(after.status).inc()
        if after.status is Status.NEEDS_REVIEW:
            log.error("top-up needs review", top_up_id=str(after.id), step=after.step, review=after.review)
        elif after.is_final:
            log.info("top-up ended", top_up_id=str(after.id), status=after.status, failure=after.failure)
