"""Awaitable values: siblings are awaited concurrently."""

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from contextlib import suppress
from types import CoroutineType
from typing import Any, Final, TypeVar

from graphql import GraphQLResolveInfoHelpers
from graphql.pyutils import gather_with_cancel, is_awaitable

Places = TypeVar("Places", dict[str, Any], list[Any])

_background: Final[set[asyncio.Future[Any]]] = set()
"""Futures of `settle`; asyncio itself keeps only weak references to tasks."""


async def await_all(results: Places, places: Sequence[Any]) -> Places:
    """Await some members of an object or a list concurrently, and put their results in their places.

    If one fails, the others are cancelled.

    Args:
        results: the object or list.
        places: keys or indexes of the awaitable members.
    """
    members: Any = results
    if len(places) == 1:
        members[places[0]] = await members[places[0]]
    else:
        values = await gather_with_cancel(*(members[place] for place in places))
        for place, value in zip(places, values, strict=True):
            members[place] = value
    return results


def settle(awaitables: Iterable[Awaitable[Any]]) -> None:
    """Run abandoned awaitables to their end in the background. Without a running event loop, close coroutines."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        for each in awaitables:
            if isinstance(each, CoroutineType):
                each.close()
        return
    future = asyncio.gather(*awaitables, return_exceptions=True)
    _background.add(future)
    future.add_done_callback(_background.discard)


def settle_rest(items: Iterator[Any], awaitables: list[Awaitable[Any]]) -> None:
    """Settle awaitables, and those that an iterator still has."""
    with suppress(Exception):
        awaitables.extend(item for item in items if is_awaitable(item))
    if awaitables:
        settle(awaitables)


def _track(values: Sequence[Any]) -> None:
    awaitables = [value for value in values if is_awaitable(value)]
    if awaitables:
        settle(awaitables)


def _gather(values: Sequence[Awaitable[Any]]) -> Awaitable[list[Any]]:
    return gather_with_cancel(*values)


HELPERS: Final = GraphQLResolveInfoHelpers(gather=_gather, track=_track)
"""`info.async_helpers` of every execution. graphql-core's belong to one execution and refer to it: a cycle."""
