"""Data loaders that batch the lookups of resolvers."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from strawberry.dataloader import DataLoader

from kit.rpc.batches import call_each
from wallet.errors import WalletError

Key = TypeVar("Key")
Value = TypeVar("Value")

_MAX_KEYS: Final = 1_000
"""Maximum number of ids in one call of a service's `Batch…` method."""


def batch_loader(fetch: Callable[[list[Key]], Awaitable[Mapping[Key, Value | WalletError]]]) -> DataLoader[Key, Value]:
    """Create a data loader, which collects the ids of one event loop tick into one call.

    The loader does not cache, so that fields resolved after a mutation in the same request, or on the same WebSocket,
    read the new state.

    Args:
        fetch: returns a value or an error for each of at most 1,000 different ids.
    """

    async def load(ids: list[Key]) -> list[Value | WalletError]:
        values = await fetch(list(dict.fromkeys(ids)))
        return [values[id_] for id_ in ids]

    return DataLoader(load_fn=load, max_batch_size=_MAX_KEYS, cache=False)


def single_loader(fetch: Callable[[Key], Awaitable[Value]]) -> DataLoader[Key, Value]:
    """Create a data loader that makes one call for each different key of an event loop tick. It does not cache.

    Args:
        fetch: returns the value of a key, or raises a WalletError.
    """
    return batch_loader(lambda keys: call_each(fetch, keys))
