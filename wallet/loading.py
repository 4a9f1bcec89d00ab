"""Loading what resolvers ask for one by one in calls for many."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from strawberry.dataloader import DataLoader

from wallet.errors import WalletError

Key = TypeVar("Key")
Value = TypeVar("Value")

_MAX_KEYS: Final = 1_000
"""What the services' Batch calls take at most."""


def batch_loader(fetch: Callable[[list[Key]], Awaitable[Mapping[Key, Value | WalletError]]]) -> DataLoader[Key, Value]:
    """Values by id, for one request: one call a tick, each id in it once, and each id's own value or error.

    It does not cache: a query after a mutation sees what the mutation did.

    Args:
        fetch: answers every id that it is asked for; at most 1,000 at once.
    """

    async def load(ids: list[Key]) -> list[Value | WalletError]:
        found = await fetch(list(dict.fromkeys(ids)))
        return [found[id_] for id_ in ids]

    return DataLoader(load_fn=load, max_batch_size=_MAX_KEYS, cache=False)
