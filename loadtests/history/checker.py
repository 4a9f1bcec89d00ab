"""History checker: compares the responses to clients, and their times, with the rows of the ledger.

It also checks linearizability, account by account. A transfer was committed at some moment between the start of the
first call that requested it and the first response that acknowledged it. In the same way, a refusal was decided between
the start of the first call with the refused request and the first response with the refusal. Each transfer increments
the version of its two accounts. The checker verifies that the moments of an account's transfers can have the same order
as the account's versions.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import accumulate
from math import inf
from uuid import UUID

from loadtests.history.calls import (
    CONFLICT,
    DEFECT,
    Answer,
    BalanceSnapshot,
    FloorChange,
    FrozenPeriod,
    IdempotencyKey,
    LedgerRequest,
    NoEffect,
    Receipt,
    RecordedCall,
    Refusal,
    RequestBody,
    TopUpState,
    UnknownOutcome,
    unresolved_requests,
)
from loadtests.history.model import AccountHistory, Invariant, Row, Violation, replay
from loadtests.history.rows import Account, IdempotencyRow, LedgerRows, Transfer


def check_history(
    ledger: LedgerRows,
    calls: Sequence[RecordedCall],
    snapshots: Sequence[BalanceSnapshot] = (),
    frozen: Sequence[FrozenPeriod] = (),
    floors: Sequence[FloorChange] = (),
) -> list[Violation]:
    """Return every contradiction within the ledger, within the calls, and between the ledger and the calls.

    Args:
        ledger: rows, read after the last call. Every account was opened before the first call.
        calls: all calls on these accounts, including the final retries of unknown outcomes.
        snapshots: balance snapshots, read while the calls were made.
        frozen: periods in which accounts were frozen. There are no others.
        floors: all floors of the accounts whose floor changed, each with the one before the first change.
    """
    histories, violations = replay(ledger, floors)
    keys = _group_by_key(ledger, calls, histories)
    intervals = {each.transfer.id: each.interval for each in keys if each.transfer}
    timelines = {id_: Timeline(history, intervals) for id_, history in histories.items()}
    for each in keys:
        violations += each.check_answers()
        violations += _check_refusal(each, timelines, frozen, floors)
        violations += _check_frozen(each, frozen)
        violations += _check_floor(each, timelines, floors)
    for timeline in timelines.values():
        violations += timeline.check_order(keys)
    violations += _check_one_key_per_transfer(ledger, calls)
    violations += (
        Violation(Invariant.KNOWN, [], [call for call in calls if call.request == request])
        for request in unresolved_requests(calls)
    )
    violations += (Violation(Invariant.DEFECT, [], [call]) for call in calls if call.answer == UnknownOutcome(DEFECT))
    violations += (Violation(Invariant.SNAPSHOT, [], [each]) for each in snapshots if each.change)
    return violations


def check_top_up_marks(calls: Iterable[RecordedCall]) -> list[Violation]:
    """Return a violation for each response to a top-up that is wrongly marked as a replay, or wrongly not marked.

    Args:
        calls: all calls, not yet converted by `deposits_of_top_ups`.
    """
    by_key: dict[IdempotencyKey, list[RecordedCall]] = defaultdict(list)
    for call in calls:
        if call.request.key.operation == "top-up":
            by_key[call.request.key].append(call)
    return [Violation(Invariant.REPLAY, [], wrong) for calls in by_key.values() for wrong in _wrongly_marked(calls)]


@dataclass(frozen=True, slots=True)
class Interval:
    """Time interval of a decision: after `begin` and before `end`."""

    begin: float = -inf
    end: float = inf


@dataclass(frozen=True)
class KeyHistory:
    """Calls with one idempotency key, and the ledger's rows for it.

    Attributes:
        key: the key.
        calls: calls with the key.
        row: row of the key in the ledger.
        transfer: transfer that the row refers to.
        receipt: receipt that the model expects for that transfer.
    """

    key: IdempotencyKey
    calls: Sequence[RecordedCall]
    row: IdempotencyRow | None
    transfer: Transfer | None
    receipt: Receipt | None

    @property
    def rows(self) -> list[Row]:
        """Return the rows of the key in the ledger."""
        return [row for row in (self.row, self.transfer) if row]

    @cached_property
    def decided_body(self) -> RequestBody | None:
        """Return the body that the ledger decided on: that of the transfer, or of the first call with a decision."""
        if self.transfer:
            return self.transfer.body
        return next((call.request.body for call in self.calls if _is_decision(call.answer)), None)

    @cached_property
    def interval(self) -> Interval:
        """Return the interval in which the ledger decided on the key."""
        own = [call for call in self.calls if call.request.body == self.decided_body]
        return Interval(
            min((call.began for call in own), default=-inf),
            min((call.ended for call in own if _is_decision(call.answer)), default=inf),
        )

    def check_answers(self) -> Iterator[Violation]:
        """Compare the responses with the row of the key, and with each other."""
        if self.row and self.transfer is None and self.row.refusal is None:
            yield self._violation(Invariant.ONE_KEY)
        if self.transfer and (
            (self.transfer.idempotency_key, self.transfer.kind.lower()) != (self.key.key, self.key.operation)
            or self.decided_body not in {call.request.body for call in self.calls}
        ):
            yield self._violation(Invariant.REQUESTED)
        if self.row and self.row.refusal and not self.calls:
            yield self._violation(Invariant.REQUESTED)
        if self.row and self.calls and all(isinstance(call.answer, NoEffect) for call in self.calls):
            yield self._violation(Invariant.NO_EFFECT)
        for call in self.calls:
            invariant = self._violated_by(call.request.body, call.answer)
            if invariant:
                yield self._violation(invariant, [call])
        for wrong in _wrongly_marked(self.calls):
            yield self._violation(Invariant.REPLAY, wrong)

    def _violation(self, invariant: Invariant, calls: Sequence[RecordedCall] | None = None) -> Violation:
        return Violation(invariant, self.rows, self.calls if calls is None else calls)

    def _violated_by(self, body: RequestBody, answer: Answer) -> Invariant | None:
        """Return the invariant that a response violates."""
        match answer:
            case Receipt():
                return self._violated_by_receipt(body, answer)
            case Refusal(reason=reason) if reason == CONFLICT:
                return Invariant.CONFLICT if self.row is None or self.decided_body in {None, body} else None
            case Refusal():
                if self.transfer or self.row is None:
                    return Invariant.REFUSED
                if body != self.decided_body:
                    return Invariant.CONFLICT
                return None if self.row.refusal == answer else Invariant.SAME
        return None

    def _violated_by_receipt(self, body: RequestBody, receipt: Receipt) -> Invariant | None:
        if self.transfer is None:
            return Invariant.ACKNOWLEDGED
        if self.transfer.id != receipt.transfer_id:
            return Invariant.SAME
        if body != self.decided_body:
            return Invariant.CONFLICT
        return None if self.receipt and self.receipt.includes(receipt) else Invariant.RECEIPT


class Timeline:
    """Intervals in which an account reached each of its versions, according to the calls."""

    def __init__(self, history: AccountHistory, intervals: Mapping[UUID, Interval]) -> None:
        self.history = history
        self._intervals = [intervals.get(transfer.id, Interval()) for transfer in history.transfers]
        # A later version cannot be reached before an earlier one. This tightens the bounds:
        self._begins = list(accumulate((interval.begin for interval in self._intervals), max))
        self._ends = list(accumulate((interval.end for interval in reversed(self._intervals)), min))[::-1]

    def possible_balances(self, interval: Interval) -> set[Decimal]:
        """Return the balances that the account may have had in an interval."""
        lowest = bisect_left(self._ends, interval.begin)
        highest = bisect_right(self._begins, interval.end)
        return set(self.history.balances[lowest : highest + 1])

    def check_order(self, keys: Iterable[KeyHistory]) -> Iterator[Violation]:
        """Compare the order of versions with the order of calls."""
        transfers = self.history.transfers
        calls = {each.transfer.id: each.calls for each in keys if each.transfer} if self._is_out_of_order() else {}
        for place, interval in enumerate(self._intervals[:-1]):
            if self._ends[place + 1] < interval.begin:
                later = next(n for n in range(place + 1, len(transfers)) if self._intervals[n].end < interval.begin)
                both = [transfers[place], transfers[later]]
                yield Violation(Invariant.REAL_TIME, both, [call for each in both for call in calls.get(each.id, ())])

    def transfers_requested_after(self, time: float) -> list[Transfer]:
        """Return the transfers that were first requested after a time."""
        both = zip(self.history.transfers, self._intervals, strict=True)
        return [transfer for transfer, interval in both if interval.begin > time]

    def may_have_used(self, reference: str, interval: Interval) -> bool:
        """Return whether a transfer from the account with the reference may have been made before an interval's end."""
        both = zip(self.history.transfers, self._begins, strict=True)
        return any(
            transfer.reference == reference and transfer.sender_id == self.history.account.id and begin <= interval.end
            for transfer, begin in both
        )

    def _is_out_of_order(self) -> bool:
        return any(end < interval.begin for interval, end in zip(self._intervals, self._ends[1:], strict=False))


def _group_by_key(
    ledger: LedgerRows, calls: Iterable[RecordedCall], histories: Mapping[UUID, AccountHistory]
) -> list[KeyHistory]:
    """Return one history for each key in the calls or in the ledger."""
    calls_by_key: dict[IdempotencyKey, list[RecordedCall]] = defaultdict(list)
    for call in calls:
        calls_by_key[call.request.key].append(call)
    rows = {row.key: row for row in ledger.keys}
    transfers = {transfer.id: transfer for transfer in ledger.transfers}
    keys = []
    for key in {**calls_by_key, **rows}:
        row = rows.get(key)
        transfer = transfers.get(row.transfer_id) if row and row.transfer_id else None
        receipt = _expected_receipt(transfer, histories) if transfer else None
        keys.append(KeyHistory(key, calls_by_key.get(key, []), row, transfer, receipt))
    return keys


def _expected_receipt(transfer: Transfer, histories: Mapping[UUID, AccountHistory]) -> Receipt | None:
    """Return the receipt that the caller should have received for a transfer."""
    sender, recipient = transfer.sides
    id_, version, _ = recipient if transfer.kind == "DEPOSIT" else sender
    if id_ not in histories or version > histories[id_].version:
        return None
    return Receipt(transfer.id, id_, version, histories[id_].balances[version], transfer.amount)


def _is_decision(answer: Answer) -> bool:
    """Return whether the response is the ledger's decision on the key. A conflict with the key does not count."""
    return isinstance(answer, Receipt | Refusal) and not _is_conflict(answer)


def _wrongly_marked(calls: Sequence[RecordedCall]) -> Iterator[Sequence[RecordedCall]]:
    """Yield groups of calls with one key whose marks of replays are wrong.

    Of all responses with an outcome, at most one may have no mark: that of the call that was decided first. A marked
    response is wrong unless another call with the same request began before the marked call ended. A conflict is never
    a replay.
    """
    answered = [(call, call.answer) for call in calls if isinstance(call.answer, Receipt | Refusal | TopUpState)]
    first = [call for call, answer in answered if answer.is_replay is False and not _is_conflict(answer)]
    if len(first) > 1:
        yield first
    for call, answer in answered:
        others = (each for each in calls if each is not call and each.request == call.request)
        is_repeated = not _is_conflict(answer) and any(each.began < call.ended for each in others)
        if answer.is_replay and not is_repeated:
            yield [call]


def _is_conflict(answer: Answer) -> bool:
    return isinstance(answer, Refusal) and answer.reason == CONFLICT


def _check_one_key_per_transfer(ledger: LedgerRows, calls: Sequence[RecordedCall]) -> Iterator[Violation]:
    """Yield a violation for each transfer with no idempotency row or with several."""
    rows: dict[UUID | None, list[Row]] = defaultdict(list)
    for row in ledger.keys:
        rows[row.transfer_id].append(row)
    for transfer in ledger.transfers:
        if len(rows[transfer.id]) != 1:
            related = [call for call in calls if call.request.key.key == transfer.idempotency_key]
            yield Violation(Invariant.ONE_KEY, [transfer, *rows[transfer.id]], related)


def _check_frozen(key: KeyHistory, frozen: Sequence[FrozenPeriod]) -> Iterator[Violation]:
    """Yield a violation if the key's transfer was decided while one of its accounts was certainly frozen."""
    if key.transfer is None:
        return
    sides = (key.transfer.sender_id, "OUTGOING"), (key.transfer.recipient_id, "INCOMING")
    for period in frozen:
        is_within = period.certain_from < key.interval.begin and key.interval.end < period.certain_until
        if is_within and any(period.refuses(*side) for side in sides):
            yield Violation(Invariant.FROZEN, key.rows, key.calls)


def _may_be_frozen(account_id: UUID, body: RequestBody, interval: Interval, frozen: Iterable[FrozenPeriod]) -> bool:
    """Return whether the account can have refused the transfer in the interval because it was frozen."""
    direction = "OUTGOING" if account_id == body.sender_id else "INCOMING"
    return any(
        each.refuses(account_id, direction) and each.began <= interval.end and interval.begin <= each.ended
        for each in frozen
    )


def _possible_floors(account: Account, interval: Interval, floors: Sequence[FloorChange]) -> list[Decimal | None]:
    """Return the floors that the account can have had at a time in the interval."""
    own = [each for each in floors if each.account_id == account.id]
    if not own:
        return [account.min_balance]
    return [
        each.floor
        for each in own
        if each.began <= interval.end
        and not any(each.ended < later.began and later.ended < interval.begin for later in own)
    ]


def _check_floor(
    key: KeyHistory, timelines: Mapping[UUID, Timeline], floors: Sequence[FloorChange]
) -> Iterator[Violation]:
    """Yield a violation if the key's transfer left a balance below all floors that the sender can have had then."""
    timeline = timelines.get(key.transfer.sender_id) if key.transfer else None
    if timeline is None or key.transfer is None or key.transfer.sender_version > timeline.history.version:
        return
    if not any(each.account_id == key.transfer.sender_id for each in floors):
        return  # `RULES` compares the balance with a floor that never changed
    possible = _possible_floors(timeline.history.account, key.interval, floors)
    balance = timeline.history.balances[key.transfer.sender_version]
    if all(floor is not None and balance < floor for floor in possible):
        yield Violation(Invariant.FLOOR, [*key.rows, timeline.history.account], key.calls)


def _check_refusal(
    key: KeyHistory,
    timelines: Mapping[UUID, Timeline],
    frozen: Sequence[FrozenPeriod],
    floors: Sequence[FloorChange],
) -> Iterator[Violation]:
    """Compare the refusal in the key's row with the state of the accounts in the interval of the decision."""
    refusal = key.row.refusal if key.row else None
    request = next((call.request for call in key.calls if call.request.body == key.decided_body), None)
    if refusal and request and not _is_justified(refusal, request, key.interval, timelines, frozen, floors):
        sender = timelines.get(request.body.sender_id)
        yield Violation(Invariant.JUSTIFIED, [*key.rows, *([sender.history.account] if sender else [])], key.calls)


def _is_justified(
    refusal: Refusal,
    request: LedgerRequest,
    interval: Interval,
    timelines: Mapping[UUID, Timeline],
    frozen: Sequence[FrozenPeriod],
    floors: Sequence[FloorChange],
) -> bool:
    """Return whether the reason of the refusal can have been true in the interval."""
    body = request.body
    named = refusal.metadata.get("account_id")
    id_ = next((side for side in (body.sender_id, body.recipient_id) if str(side) == named), None)
    timeline = timelines.get(id_) if id_ else None
    if timeline is None:
        return id_ is not None and refusal.reason == "ACCOUNT_NOT_FOUND"
    account = timeline.history.account
    match refusal.reason:
        case "ACCOUNT_NOT_FOUND":
            return _is_hidden(account, request)
        case "ACCOUNT_CLOSED":
            return account.status == "CLOSED" and not timeline.transfers_requested_after(interval.end)
        case "CURRENCY_MISMATCH":
            return account.currency != body.currency
        case "INSUFFICIENT_FUNDS" | "REFERENCE_USED" if id_ == body.sender_id:
            return _is_sender_unable(refusal, body, interval, timeline, floors)
    return refusal.reason == "ACCOUNT_FROZEN" and _may_be_frozen(account.id, body, interval, frozen)


def _is_sender_unable(
    refusal: Refusal, body: RequestBody, interval: Interval, timeline: Timeline, floors: Sequence[FloorChange]
) -> bool:
    """Return whether the sender can have had too little money, or an earlier transfer with the reference."""
    if refusal.reason == "REFERENCE_USED":
        is_requested = body.is_reference_unique and refusal.metadata["reference"] == body.reference
        return is_requested and timeline.may_have_used(body.reference, interval)
    needed, available = (Decimal(refusal.metadata[name]) for name in ("needed", "available"))
    balances = timeline.possible_balances(interval)
    return available < needed == body.amount and any(
        floor is not None and available + floor in balances
        for floor in _possible_floors(timeline.history.account, interval, floors)
    )


def _is_hidden(account: Account, request: LedgerRequest) -> bool:
    """Return whether the bank hides the account from the caller.

    It hides the sender if the account belongs to another user, and the recipient of a transfer if the account is a
    clearing account.
    """
    if account.id == request.body.sender_id:
        return request.owner_id not in {None, account.owner_id}
    return request.key.operation == "transfer" and account.is_clearing
