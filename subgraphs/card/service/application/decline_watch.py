"""Periodic job for the limits of declined cards: corrects dates, deletes old attempts and updates metrics of blocks.

A block is a limit that is reached now.
"""

import asyncio
from collections import Counter
from typing import Final

import structlog

from subgraphs.card.service import metrics
from subgraphs.card.service.adapters.attempts import AttemptRepository
from subgraphs.card.service.domain.declines import DeclineLimits, LimitKind

log = structlog.get_logger(__name__)

_INTERVAL_SECONDS: Final = 10.0


async def run_decline_watch(attempts: AttemptRepository, limits: DeclineLimits) -> None:
    """Periodically delete the attempts that no longer count, and set the metrics of all current blocks.

    Attempts that a wrong clock has dated in the future are dated now.

    Raises:
        Unavailable: the database is unavailable.
    """
    for kind in LimitKind:
        metrics.TOP_UPS_BLOCKED.labels(kind)  # starts at 0, so that Prometheus sees the first block as an increase
    while True:
        if count := await attempts.redate_future_attempts():
            log.warning("future card attempts redated", attempts=count)
        await attempts.delete_old_attempts(limits)
        blocks = Counter(block.kind for block in await attempts.list_blocks(limits))
        for kind in LimitKind:
            metrics.BLOCKS.labels(kind).set(blocks[kind])
        await asyncio.sleep(_INTERVAL_SECONDS)
