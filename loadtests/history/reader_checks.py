"""What readers were shown beside what the ledger says: pages of the history, and live feeds."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from uuid import UUID

from loadtests.history.log import Feed
from loadtests.history.model import Law, Row, Violation
from loadtests.history.rows import Entry, Ledger


def judge_pages(ledger: Ledger, pages: Mapping[UUID, Sequence[Entry]]) -> Iterator[Violation]:
    """Every operation that a history shows twice, shows wrongly or does not show.

    Args:
        ledger: after the last call.
        pages: the whole history of some accounts, read when it was complete or too late to become so.
    """
    entries: dict[UUID, list[Entry]] = {id_: [] for id_ in pages}
    for entry in ledger.entries:
        if entry.account_id in entries:
            entries[entry.account_id].append(entry)
    for id_, shown in pages.items():
        wrong = (Counter(shown) - Counter(entries[id_])) + (Counter(entries[id_]) - Counter(shown))
        if wrong:
            rows: list[Row] = [*sorted(wrong, key=attrgetter("version"))]
            yield Violation(Law.HISTORY, rows)


def judge_feeds(ledger: Ledger, feeds: Iterable[Feed]) -> Iterator[Violation]:
    """Every feed with a gap, a repeat, or something that never was."""
    versions = {account.id: account.version for account in ledger.accounts}
    for feed in feeds:
        last = feed.after + len(feed.versions)
        if list(feed.versions) != list(range(feed.after + 1, last + 1)) or last > versions.get(feed.account_id, 0):
            yield Violation(Law.FEED, [], [feed])
