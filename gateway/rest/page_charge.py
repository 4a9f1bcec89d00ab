"""Rate limit of large pages: a page counts as several requests, and starts as late as the last of them would."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from gateway.http.rate_limits import RateLimiter
from kit.rpc import request_context

ITEMS_PER_REQUEST: Final = 50
"""Items of a page that count as one request: the default size of a page."""

ChargePage: TypeAlias = Callable[[int], Awaitable[None]]
"""Counts a page with this number of items as requests of the caller. Raises RateLimited above the caller's limit."""


def page_charge(limiter: RateLimiter) -> ChargePage:
    """Return a function that counts a page of the current caller. The middleware has already counted one request.

    Call the function before the page is read, so that a refused page costs nothing.
    """

    async def charge(items: int) -> None:
        requests = -(-items // ITEMS_PER_REQUEST)
        if requests > 1:
            limit, client = limiter.limit_for(request_context.current_principal(), None)
            await limiter.pace(limit, client, requests - 1)
            await limiter.hit(limit, client, requests - 1)

    return charge
