"""The judge: what clients were told beside what the ledger says, and when.

What holds besides the answers themselves is linearizability, account by account. A transfer was committed at some
moment between the first call that asked for it and the first answer that acknowledged it; so was a refusal decided. The
versions of an account must allow such moments in their order.
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
    Body,
    Call,
    Key,
    Nothing,
    Receipt,
    Refusal,
    Snapshot,
    Unknown,
    Wish,
    unknown,
)
from loadtests.history.model import Book, Law, Row, Violation, replay
from loadtests.history.rows import Account, Ledger, Pinned, Transfer


def judge(ledger: Ledger, calls: Sequence[Call], snapshots: Sequence[Snapshot] = ()) -> list[Violation]:
    """Every way in which the ledger and the history contradict each other or themselves; none for a true history.

    Args:
        ledger: its rows, after the last call. Every account was opened before the first one.
        calls: all that were ever made about these accounts, and at the end again until every outcome was known.
        snapshots: read while the calls were made.
    """
    books, violations = replay(ledger)
    cases = _cases(ledger, calls, books)
    moments = {case.transfer.id: case.moment for case in cases if case.transfer}
    timelines = {id_: Timeline(book, moments) for id_, book in books.items()}
    for case in cases:
        violations += case.judge()
        violations += _justify(case, timelines)
    for timeline in timelines.values():
        violations += timeline.judge(cases)
    violations += _one_key_each(ledger, calls)
    violations += (Violation(Law.KNOWN, [], [c for c in calls if c.wish == wish]) for wish in unknown(calls))
    violations += (Violation(Law.DEFECT, [], [call]) for call in calls if call.answer == Unknown(DEFECT))
    violations += (Violation(Law.SNAPSHOT, [], [seen]) for seen in snapshots if seen.gained)
    return violations


@dataclass(frozen=True, slots=True)
class Moment:
    """When something was decided: after `begin` and before `end`."""

    begin: float = -inf
    end: float = inf


@dataclass(frozen=True)
class Case:
    """All that is known of one key: the calls with it, its row, the transfer that the row names, and the receipt that
    the model gives for that one.
    """

    key: Key
    calls: Sequence[Call]
    row: Pinned | None
    transfer: Transfer | None
    receipt: Receipt | None

    @property
    def rows(self) -> list[Row]:
        """What the ledger has of it."""
        return [row for row in (self.row, self.transfer) if row]

    @cached_property
    def first(self) -> Body | None:
        """The request that the key belongs to: the transfer's, or the one that was refused rather than a conflict."""
        if self.transfer:
            return self.transfer.body
        return next((call.wish.body for call in self.calls if _is_decided(call.answer)), None)

    @cached_property
    def moment(self) -> Moment:
        """When the key was decided on."""
        own = [call for call in self.calls if call.wish.body == self.first]
        return Moment(
            min((call.began for call in own), default=-inf),
            min((call.ended for call in own if _is_decided(call.answer)), default=inf),
        )

    def judge(self) -> Iterator[Violation]:
        """The key's answers beside its row, and beside each other."""
        if self.row and self.transfer is None and self.row.refusal is None:
            yield self._broken(Law.ONE_KEY)
        if self.transfer and (
            (self.transfer.idempotency_key, self.transfer.kind.lower()) != (self.key.key, self.key.operation)
            or self.first not in {call.wish.body for call in self.calls}
        ):
            yield self._broken(Law.ASKED)
        if self.row and self.row.refusal and not self.calls:
            yield self._broken(Law.ASKED)
        if self.row and self.calls and all(isinstance(call.answer, Nothing) for call in self.calls):
            yield self._broken(Law.NOTHING)
        for call in self.calls:
            law = self._broken_by(call.wish.body, call.answer)
            if law:
                yield self._broken(law, [call])

    def _broken(self, law: Law, calls: Sequence[Call] | None = None) -> Violation:
        return Violation(law, self.rows, self.calls if calls is None else calls)

    def _broken_by(self, body: Body, answer: Answer) -> Law | None:
        """The law that one answer breaks."""
        match answer:
            case Receipt():
                return self._broken_by_receipt(body, answer)
            case Refusal(reason=reason) if reason == CONFLICT:
                return Law.CONFLICT if self.row is None or self.first in {None, body} else None
            case Refusal():
                if self.transfer or self.row is None:
                    return Law.REFUSED
                if body != self.first:
                    return Law.CONFLICT
                return None if self.row.refusal == answer else Law.SAME
        return None

    def _broken_by_receipt(self, body: Body, receipt: Receipt) -> Law | None:
        if self.transfer is None:
            return Law.ACKNOWLEDGED
        if self.transfer.id != receipt.transfer_id:
            return Law.SAME
        if body != self.first:
            return Law.CONFLICT
        return None if self.receipt and self.receipt.says(receipt) else Law.RECEIPT


class Timeline:
    """When an account came to each of its versions, as far as the calls tell."""

    def __init__(self, book: Book, moments: Mapping[UUID, Moment]) -> None:
        self.book = book
        self._moments = [moments.get(transfer.id, Moment()) for transfer in book.transfers]
        # Nothing of a later version may end before something of an earlier one begins; so the tightest bounds are:
        self._begins = list(accumulate((moment.begin for moment in self._moments), max))
        self._ends = list(accumulate((moment.end for moment in reversed(self._moments)), min))[::-1]

    def balances(self, moment: Moment) -> set[Decimal]:
        """What the account may have held then."""
        lowest = bisect_left(self._ends, moment.begin)
        highest = bisect_right(self._begins, moment.end)
        return set(self.book.balances[lowest : highest + 1])

    def judge(self, cases: Iterable[Case]) -> Iterator[Violation]:
        """The order of versions beside the order of calls."""
        transfers = self.book.transfers
        of = {case.transfer.id: case.calls for case in cases if case.transfer} if self._is_out_of_order() else {}
        for place, moment in enumerate(self._moments[:-1]):
            if self._ends[place + 1] < moment.begin:
                later = next(n for n in range(place + 1, len(transfers)) if self._moments[n].end < moment.begin)
                both = [transfers[place], transfers[later]]
                yield Violation(Law.REAL_TIME, both, [call for made in both for call in of.get(made.id, ())])

    def made_after(self, time: float) -> list[Transfer]:
        """Those that nobody had asked for by then."""
        both = zip(self.book.transfers, self._moments, strict=True)
        return [transfer for transfer, moment in both if moment.begin > time]

    def _is_out_of_order(self) -> bool:
        return any(end < moment.begin for moment, end in zip(self._moments, self._ends[1:], strict=False))


def _cases(ledger: Ledger, calls: Iterable[Call], books: Mapping[UUID, Book]) -> list[Case]:
    """One for each key that was asked with or is in the ledger."""
    asked: dict[Key, list[Call]] = defaultdict(list)
    for call in calls:
        asked[call.wish.key].append(call)
    pinned = {row.key: row for row in ledger.keys}
    transfers = {transfer.id: transfer for transfer in ledger.transfers}
    cases = []
    for key in {**asked, **pinned}:
        row = pinned.get(key)
        transfer = transfers.get(row.transfer_id) if row and row.transfer_id else None
        receipt = _receipt(transfer, books) if transfer else None
        cases.append(Case(key, asked.get(key, []), row, transfer, receipt))
    return cases


def _receipt(transfer: Transfer, books: Mapping[UUID, Book]) -> Receipt | None:
    """What whoever asked for the transfer should have been told."""
    sender, recipient = transfer.sides
    id_, version, _ = recipient if transfer.kind == "DEPOSIT" else sender
    if id_ not in books or version > books[id_].version:
        return None
    return Receipt(transfer.id, id_, version, books[id_].balances[version], transfer.amount)


def _is_decided(answer: Answer) -> bool:
    """The ledger's decision on the key, rather than none or a conflict with it."""
    return isinstance(answer, Receipt) or (isinstance(answer, Refusal) and answer.reason != CONFLICT)


def _one_key_each(ledger: Ledger, calls: Sequence[Call]) -> Iterator[Violation]:
    """Transfers that no key answers with, or more than one."""
    rows: dict[UUID | None, list[Row]] = defaultdict(list)
    for row in ledger.keys:
        rows[row.transfer_id].append(row)
    for transfer in ledger.transfers:
        if len(rows[transfer.id]) != 1:
            about = [call for call in calls if call.wish.key.key == transfer.idempotency_key]
            yield Violation(Law.ONE_KEY, [transfer, *rows[transfer.id]], about)


def _justify(case: Case, timelines: Mapping[UUID, Timeline]) -> Iterator[Violation]:
    """The refusal that is pinned to a key, beside the accounts as they were when it was decided."""
    refusal = case.row.refusal if case.row else None
    wish = next((call.wish for call in case.calls if call.wish.body == case.first), None)
    if refusal and wish and not _is_true(refusal, wish, case.moment, timelines):
        about = timelines.get(wish.body.sender_id)
        yield Violation(Law.JUSTIFIED, [*case.rows, *([about.book.account] if about else [])], case.calls)


def _is_true(refusal: Refusal, wish: Wish, moment: Moment, timelines: Mapping[UUID, Timeline]) -> bool:
    """Whether the ledger had reason to refuse this at that moment."""
    body = wish.body
    named = refusal.metadata.get("account_id")
    id_ = next((side for side in (body.sender_id, body.recipient_id) if str(side) == named), None)
    timeline = timelines.get(id_) if id_ else None
    if timeline is None:
        return id_ is not None and refusal.reason == "ACCOUNT_NOT_FOUND"
    account = timeline.book.account
    match refusal.reason:
        case "ACCOUNT_NOT_FOUND":
            return _is_hidden(account, wish)
        case "ACCOUNT_CLOSED":
            return account.status == "CLOSED" and not timeline.made_after(moment.end)
        case "CURRENCY_MISMATCH":
            return account.currency != body.currency
        case "INSUFFICIENT_FUNDS" if id_ == body.sender_id and account.min_balance is not None:
            needed, available = (Decimal(refusal.metadata[name]) for name in ("needed", "available"))
            return available < needed == body.amount and available + account.min_balance in timeline.balances(moment)
    return False


def _is_hidden(account: Account, wish: Wish) -> bool:
    """An account that is there, and that whoever asks may not use so."""
    if account.id == wish.body.sender_id:
        return wish.owner_id not in {None, account.owner_id}
    return wish.key.operation == "transfer" and account.min_balance is None
