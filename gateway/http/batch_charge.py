"""Rate limit of a batch of transfers: a batch of n counts as n requests."""

from typing import Final

from gateway.http.rate_limits import RateLimiter
from kit.rpc import request_context

_ITEMS_PER_START: Final = 10
"""Transfers of a batch that are paced as one request. Together they take about as much of the gateway's time as one."""


async def charge_batch(limiter: RateLimiter, items: int) -> None:
    """Count a batch as requests of the current caller. The middleware has already counted one request.

    Call it before the batch is executed, so that a refused batch changes nothing.

    Args:
        limiter: counts the requests.
        items: number of transfers in the batch.

    Raises:
        RateLimited: the caller has fewer requests left.
    """
    if items > 1:
        limit, client = limiter.limit_for(request_context.current_principal(), None)
        await limiter.pace(limit, client, -(-items // _ITEMS_PER_START))
        await limiter.hit(limit, client, items - 1)
