"""Integrity check of the ledger: scans the tables of `SCANS`, page by page, while the ledger is in use."""

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from functools import partial
from typing import Final
from uuid import UUID

import asyncpg

from kit.integrity.check import Finding, IntegrityCheck, Progress, Violation
from subgraphs.bank.service import metrics
from subgraphs.bank.service.adapters.postgres.invariants import (
    KEYS,
    SCANS,
    TRANSFERS,
    Invariant,
    InvariantReader,
    Page,
    TableScan,
)

_PAGE_SIZE: Final = 2_000
_PARTITIONS: Final = 16**3
_MAX_IDS_IN_MEMORY: Final = 100_000
"""Maximum number of ids that are held in memory, to find the transfers that do not have exactly one key."""


def ledger_integrity(pool: asyncpg.Pool, page_size: int = _PAGE_SIZE) -> IntegrityCheck:
    """Create the integrity check of the ledger's invariants (`Invariant`).

    It cannot detect errors that no other row contradicts: a missing account without entries, an account without entries
    whose balance and opening balance are equally wrong, a key with the wrong principal or fingerprint, or an outbox row
    that was deleted without being published. It checks `TRANSFER_HAS_ONE_KEY` only for transfers whose transaction is
    older than every transaction that was running when the check began. If the ledger has had more than 2^32
    transactions, each check leaves out about one in sixteen of the older transfers. The next check leaves out others.

    Args:
        pool: connections to the ledger's database; a check holds one of them.
        page_size: rows per statement.
    """
    return IntegrityCheck(partial(_check, pool, page_size), [scan.table for scan in SCANS], metrics.INTEGRITY)


async def _check(pool: asyncpg.Pool, page_size: int) -> AsyncGenerator[Finding, None]:
    transfers, keys = IdDigest(), IdDigest()
    digests = {TRANSFERS.table: transfers, KEYS.table: keys}
    async with InvariantReader.begin(pool) as reader:
        for scan in SCANS:
            rows = 0
            async for page in _pages(reader, scan, page_size):
                if scan.returns_transfer_ids:
                    digests[scan.table].add(page.transfer_ids)
                for violation in page.violations:
                    yield violation
                rows += page.rows
                yield Progress(scan.table, page.verified_up_to, rows)
        for violation in await reader.check_totals():
            yield violation
        await reader.check_fence()
        differences = transfers.compare(keys)
        if differences:
            async for finding in _find_transfers_without_one_key(reader, differences, page_size):
                yield finding


async def _find_transfers_without_one_key(
    reader: InvariantReader, differences: Mapping[int, tuple[int, int]], page_size: int
) -> AsyncGenerator[Finding, None]:
    """Find the transfers that have no key or more than one.

    Scans transfers and keys again for the partitions that differ; a partition has the ids with the same last digits.
    For partitions whose ids do not fit into `_MAX_IDS_IN_MEMORY`, it reports only the numbers of keys and transfers.
    """
    free, named, counted = _MAX_IDS_IN_MEMORY, set[int](), list[Violation]()
    for partition, (transfers, keys) in differences.items():
        free -= transfers + keys
        if free >= 0:
            named.add(partition)
        else:
            counted.append(_one_key_violation(f"…{partition:03x}", keys, transfers))
    keys_by_transfer = Counter[UUID]()
    for scan in (TRANSFERS, KEYS) if named else ():
        rows = 0
        async for page in _pages(reader, scan, page_size):
            ids = [id_ for id_ in page.transfer_ids if partition_of_id(id_) in named]
            keys_by_transfer.update(ids if scan is KEYS else dict.fromkeys(ids, 0))
            rows += page.rows
            yield Progress(f"{scan.table} again", page.verified_up_to, rows)
    await reader.check_fence()
    for id_, count in sorted(keys_by_transfer.items()):
        if count != 1:
            yield _one_key_violation(str(id_), count, 1)
    for violation in counted:
        yield violation


async def _pages(reader: InvariantReader, scan: TableScan, page_size: int) -> AsyncGenerator[Page, None]:
    """Yield the pages of a scan up to the first page that is not full.

    The scan does not wait for a page without rows: if rows are added all the time, there might never be one.
    """
    page = await reader.check_page(scan, None, page_size)
    while page:
        yield page
        page = await reader.check_page(scan, page.mark, page_size) if page.rows == page_size else None


def partition_of_id(id_: UUID) -> int:
    """Return the partition of an id: its last three hexadecimal digits, which are random in the bank's ids."""
    return id_.int % _PARTITIONS


class IdDigest:
    """Digest of ids in constant memory, independent of their order. For each partition, it has the number of ids and
    their exclusive or.

    A missing, added or replaced id always changes the digest. If several ids differ, the digest is the same only if
    each partition has equal counts and the exclusive or of its differing ids is 0.
    """

    def __init__(self) -> None:
        self._partitions = [(0, 0)] * _PARTITIONS

    def add(self, ids: Iterable[UUID]) -> None:
        """Add ids."""
        for id_ in ids:
            partition = partition_of_id(id_)
            count, bits = self._partitions[partition]
            self._partitions[partition] = count + 1, bits ^ id_.int

    def compare(self, other: "IdDigest") -> dict[int, tuple[int, int]]:
        """Return the partitions that differ, with the number of ids in this digest and in the other."""
        pairs = zip(self._partitions, other._partitions, strict=True)  # noqa: SLF001  the same class
        return {partition: (own[0], others[0]) for partition, (own, others) in enumerate(pairs) if own != others}


def _one_key_violation(transfer_id: str, keys: int, transfers: int) -> Violation:
    expected = "1 key" if transfers == 1 else f"a key for each of {transfers} transfers"
    return Violation(Invariant.TRANSFER_HAS_ONE_KEY, {"transfer_id": transfer_id}, f"{keys} keys", expected)
