"""Several requests in one call, or one call for each request."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from wallet.errors import WalletError

Key = TypeVar("Key")
Value = TypeVar("Value")


async def call_each(call: Callable[[Key], Awaitable[Value]], keys: Iterable[Key]) -> dict[Key, Value | WalletError]:
    """Make one call for each different key, all at once; return a value or an error for each key."""

    async def call_one(key: Key) -> Value | WalletError:
        try:
            return await call(key)
        except WalletError as error:
            return error

    unique = list(dict.fromkeys(keys))
    return dict(zip(unique, await asyncio.gather(*map(call_one, unique)), strict=True))


async def call_in_batches(
    call: Callable[[Key], Awaitable[Value]],
    call_batch: Callable[[Sequence[Key]], Awaitable[Sequence[Value | WalletError] | None]],
    batches: Iterable[Sequence[Key]],
) -> dict[Key, Value | WalletError]:
    """Make one call for each batch, all at once; return a value or an error for each key.

    Args:
        call: makes the call for one key. Used for a batch of one key, and for a service that lacks the other call.
        call_batch: makes the call for several keys, and returns their results in order; None if the service lacks this
            call, because its release is older.
        batches: keys of each call.
    """

    async def run(batch: Sequence[Key]) -> dict[Key, Value | WalletError]:
        if len(batch) > 1:
            try:
                results = await call_batch(batch)
            except WalletError as error:
                return dict.fromkeys(batch, error)
            if results is not None:
                return dict(zip(batch, results, strict=True))
        return await call_each(call, batch)

    merged: dict[Key, Value | WalletError] = {}
    for results in await asyncio.gather(*map(run, batches)):
        merged |= results
    return merged
