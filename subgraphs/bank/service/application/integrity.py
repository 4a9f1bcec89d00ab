"""The ledger proved, page by page, while it is in use."""

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from functools import partial
from typing import Final
from uuid import UUID

import asyncpg

from kit.integrity.check import Finding, IntegrityCheck, Progress, Violation
from subgraphs.bank.service import metrics
from subgraphs.bank.service.adapters.postgres.proof import KEYS, TRANSFERS, WALKS, Law, Page, Proof, Walk

_PAGE: Final = 2_000
_PARTS: Final = 16**3
_NAMED: Final = 100_000
"""How many ids may be held in memory, to name the transfers that have not one key."""


def ledger_integrity(pool: asyncpg.Pool, page: int = _PAGE) -> IntegrityCheck:
    """Proves the ledger's laws (`Law`).

    What it cannot prove, because nothing else in the ledger says it: that an account without entries has not vanished,
    or changed its opening balance with its balance; that a key is its caller's, and its fingerprint the request's; that
    what has left the outbox was published. That a transfer has one key is proved of those that had been committed
    before the oldest transaction that was running when the proof began.

    Args:
        pool: of connections to the ledger's database; one is held while proving.
        page: rows a statement.
    """
    return IntegrityCheck(partial(_found, pool, page), [walk.table for walk in WALKS], metrics.INTEGRITY)


async def _found(pool: asyncpg.Pool, limit: int) -> AsyncGenerator[Finding, None]:
    made, remembered = Tally(), Tally()
    tallies = {TRANSFERS.table: made, KEYS.table: remembered}
    async with Proof.begin(pool) as proof:
        for walk in WALKS:
            rows = 0
            async for page in _pages(proof, walk, limit):
                if walk.pairs:
                    tallies[walk.table].add(page.pairs)
                for violation in page.violations:
                    yield violation
                rows += page.rows
                yield Progress(walk.table, page.verified_up_to, rows)
        for violation in await proof.totals():
            yield violation
        differing = made.differing(remembered)
        if differing:
            async for found in _unpaired(proof, differing, limit):
                yield found


async def _unpaired(
    proof: Proof, differing: Mapping[int, tuple[int, int]], limit: int
) -> AsyncGenerator[Finding, None]:
    """The transfers that have no key or several. Both sides are walked again, for the parts in which they differ;
    of transfers that would not fit in memory, only the numbers are told.
    """
    room, named, counted = _NAMED, set[int](), list[Violation]()
    for part, (made, remembered) in differing.items():
        room -= made + remembered
        if room >= 0:
            named.add(part)
        else:
            counted.append(_one_key(f"…{part:03x}", remembered, made))
    keys = Counter[UUID]()
    for walk in (TRANSFERS, KEYS) if named else ():
        rows = 0
        async for page in _pages(proof, walk, limit):
            ids = [id_ for id_ in page.pairs if part_of(id_) in named]
            keys.update(ids if walk is KEYS else dict.fromkeys(ids, 0))
            rows += page.rows
            yield Progress(f"{walk.table} again", page.verified_up_to, rows)
    for id_, count in sorted(keys.items()):
        if count != 1:
            yield _one_key(str(id_), count, 1)
    for violation in counted:
        yield violation


async def _pages(proof: Proof, walk: Walk, limit: int) -> AsyncGenerator[Page, None]:
    """A page that is not full is the last: another one would find what was committed since, and so for ever."""
    page = await proof.page(walk, None, limit)
    while page:
        yield page
        page = await proof.page(walk, page.mark, limit) if page.rows == limit else None


def part_of(id_: UUID) -> int:
    """The part of all ids that this one is in: its last three digits, which are random in an id of ours."""
    return id_.int % _PARTS


class Tally:
    """Ids in whatever order they come, remembered in constant memory: by part, how many and their exclusive or.

    Two tallies of the same many ids, one of them without an id or with another instead, are the same by a chance of
    1 in 2¹¹⁰ (the random bits of an id in its part).
    """

    def __init__(self) -> None:
        self._parts = [(0, 0)] * _PARTS

    def add(self, ids: Iterable[UUID]) -> None:
        """Counts ids."""
        for id_ in ids:
            part = part_of(id_)
            count, bits = self._parts[part]
            self._parts[part] = count + 1, bits ^ id_.int

    def differing(self, other: "Tally") -> dict[int, tuple[int, int]]:
        """The parts in which the two were not given the same, with how many ids each was given."""
        pairs = zip(self._parts, other._parts, strict=True)  # noqa: SLF001  of its own class
        return {part: (mine[0], theirs[0]) for part, (mine, theirs) in enumerate(pairs) if mine != theirs}


def _one_key(transfer_id: str, keys: int, transfers: int) -> Violation:
    expected = "1 key" if transfers == 1 else f"a key for each of {transfers} transfers"
    return Violation(Law.TRANSFER_HAS_ONE_KEY, {"transfer_id": transfer_id}, f"{keys} keys", expected)
