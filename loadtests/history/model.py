"""Accounts as one would keep them on paper, and the ledger's transfers posted to them one after the other.

Nothing here is the bank's: what both got wrong in the same way nobody would see.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from loadtests.history.calls import Call, Snapshot
from loadtests.history.log import Feed
from loadtests.history.rows import Account, Entry, Ledger, Pinned, Transfer


class Law(StrEnum):
    """What holds of every ledger, and of every history of one."""

    ORDER = "one order of all transfers agrees with the versions of every account"
    RULES = "a transfer is between two open accounts of its currency, and nobody falls below their floor"
    ENTRIES = "the entries are those of the transfers, in the versions and with the balances that these lead to"
    ACCOUNTS = "an account is what its transfers have made of it"
    TIME = "time does not run against versions"
    ONE_KEY = "a transfer is made for one key, and a key makes one transfer at most"
    ASKED = "what is in the ledger was asked for, word for word"
    ACKNOWLEDGED = "what was acknowledged is in the ledger"
    RECEIPT = "a receipt says what the ledger says"
    REFUSED = "what was refused is not in the ledger, and its key says why"
    JUSTIFIED = "a refusal was true at some moment between the first call with its key and the first answer"
    SAME = "one key and one request have one answer"
    CONFLICT = "of several requests with one key the first alone is answered, the others are conflicts"
    NOTHING = "a call that did nothing left nothing"
    KNOWN = "asked again for long enough, every outcome is known"
    DEFECT = "no answer is a defect of the bank's"
    REAL_TIME = "what was answered before something else was asked for comes before it, on every account"
    SNAPSHOT = "at every moment the sum of all balances is the same"
    HISTORY = "the history that an account's owner reads is its entries, each once"
    FEED = "who watches an account is told of each version once, in their order, and of none too many"


Row = Account | Transfer | Entry | Pinned


@dataclass(frozen=True, slots=True)
class Violation:
    """A law that was broken, by these rows and these calls."""

    law: Law
    rows: Sequence[Row] = ()
    calls: Sequence[Call | Snapshot | Feed] = ()

    def __str__(self) -> str:
        return "\n    ".join((f"broken: {self.law}", *map(str, self.rows), *map(str, self.calls)))


@dataclass(slots=True)
class Book:
    """One account: its balance at each version from 0 on, and the transfer that led to each from 1 on."""

    account: Account
    balances: list[Decimal]
    transfers: list[Transfer] = field(default_factory=list)

    @property
    def version(self) -> int:
        """Of the last transfer that was posted."""
        return len(self.transfers)

    def post(self, transfer: Transfer, amount: Decimal) -> None:
        """Adds a transfer's signed amount."""
        self.balances.append(self.balances[-1] + amount)
        self.transfers.append(transfer)

    @property
    def is_overdrawn(self) -> bool:
        """Below its floor."""
        return self.account.min_balance is not None and self.balances[-1] < self.account.min_balance


def replay(ledger: Ledger) -> tuple[dict[UUID, Book], list[Violation]]:
    """Posts every transfer, in an order that agrees with the versions of all accounts.

    Returns:
        The books, and each row that is not what they say.
    """
    books = {account.id: Book(account, [account.opening_balance]) for account in ledger.accounts}
    entries = {(entry.account_id, entry.version): entry for entry in ledger.entries}
    ordered, stuck = _in_order(ledger)
    violations = [Violation(Law.ORDER, [transfer]) for transfer in stuck]
    for transfer in ordered:
        violations += _post(books, entries, transfer, ledger.outside)
    violations += (Violation(Law.ENTRIES, [entry]) for entry in entries.values())
    for book in books.values():
        violations += _compare(book)
    return books, violations


def _in_order(ledger: Ledger) -> tuple[list[Transfer], list[Transfer]]:
    """The transfers such that each comes after those of lower versions of both its accounts; and the rest, if no
    order does.
    """
    queues: dict[UUID, deque[Transfer]] = defaultdict(deque)
    sides = ((id_, version, transfer) for transfer in ledger.transfers for id_, version, _ in transfer.sides)
    inside = (side for side in sides if side[0] not in ledger.outside)
    for id_, _, transfer in sorted(inside, key=lambda side: side[1]):
        queues[id_].append(transfer)
    ordered: list[Transfer] = []
    look = deque(queues)
    while look:
        queue = queues[look.popleft()]
        if not queue:
            continue
        ids = {queue[0].sender_id, queue[0].recipient_id} - ledger.outside
        if all(queues[id_][0] is queue[0] for id_ in ids):
            ordered.append(queue[0])
            for id_ in ids:
                queues[id_].popleft()
            look.extend(ids)
    return ordered, list({transfer.id: transfer for queue in queues.values() for transfer in queue}.values())


def _post(
    books: dict[UUID, Book], entries: dict[tuple[UUID, int], Entry], transfer: Transfer, outside: frozenset[UUID]
) -> Iterator[Violation]:
    """Posts to both books, and takes the two entries away that must be there."""
    sides = [side for side in transfer.sides if side[0] not in outside]
    both = [books[id_] for id_, _, _ in sides if id_ in books]
    sender = books.get(transfer.sender_id)
    for id_, version, amount in sides:
        if id_ not in books:
            continue
        book = books[id_]
        last = book.transfers[-1] if book.transfers else transfer
        book.post(transfer, amount)
        if version != book.version:
            yield Violation(Law.ORDER, [transfer, book.account])
        if transfer.created_at < last.created_at:
            yield Violation(Law.TIME, [last, transfer])
        entry = entries.pop((id_, version), None)
        if entry != Entry(id_, book.version, transfer.id, amount, book.balances[-1]):
            yield Violation(Law.ENTRIES, [transfer] if entry is None else [transfer, entry])
    if (
        len({book.account.id for book in both}) != len(sides)
        or transfer.amount <= 0
        or any(book.account.currency != transfer.currency for book in both)
        or (sender is not None and sender.is_overdrawn)
        or (transfer.kind == "DEPOSIT") != (sender is None or sender.account.min_balance is None)
    ):
        yield Violation(Law.RULES, [transfer, *(book.account for book in both)])


def _compare(book: Book) -> Iterator[Violation]:
    """The account's row beside its book. One that is closed has been emptied first."""
    account, balance = book.account, book.balances[-1]
    if (account.balance, account.version) != (balance, book.version) or (account.status != "OPEN" and balance):
        yield Violation(Law.ACCOUNTS, [account, *book.transfers[-1:]])
