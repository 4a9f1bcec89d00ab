"""Completion of lists."""

import time
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from types import CoroutineType
from typing import Any

from graphql import GraphQLError
from graphql.pyutils import is_async_iterable, is_iterable

from gateway.graphql.execution.compiled.awaiting import await_all, settle, settle_rest
from gateway.graphql.execution.compiled.errors import Path, path_keys
from gateway.graphql.execution.compiled.run import Run
from gateway.graphql.execution.compiled.values import ValuePlan, ValueSite


@dataclass(frozen=True, slots=True)
class LongLists:
    """How other tasks of the event loop run while a long list is completed.

    Attributes:
        items_per_turn: items that are completed without a pause. Only longer lists are completed with pauses.
        pause: called after each part of a long list, with the seconds that the part took.
    """

    items_per_turn: int
    pause: Callable[[float], Awaitable[None]]


class ListPlan(ValuePlan):
    """Plan of lists."""

    __slots__ = ("_item", "_long_lists")

    def __init__(self, site: ValueSite, item: ValuePlan, long_lists: LongLists | None, *, is_non_null: bool) -> None:
        """Args:
        site: where the lists come from.
        item: plan of the items.
        long_lists: how to pause during long lists; None: without pauses.
        is_non_null: the list must not be null.
        """
        super().__init__(site, is_non_null=is_non_null)
        self._item = item
        self._long_lists = long_lists

    def complete(self, value: Any, path: Path, run: Run, info: Any) -> Any:
        """Return the list of the completed items."""
        if is_async_iterable(value):
            return self._complete_async(value, path, run, info)
        if not is_iterable(value):
            raise GraphQLError(f"Expected Iterable, but did not find one for field '{self.site.name}'.")
        long = self._long_lists
        if long is not None and isinstance(value, Collection) and len(value) > long.items_per_turn:
            return self._complete_long(value, long, path, run, info)
        results: list[Any] = []
        awaited: list[int] = []
        items = iter(value)
        try:
            self._complete_items(items, results, awaited, path, run, info)
        except Exception:
            settle_rest(items, [results[index] for index in awaited])
            raise
        return await_all(results, awaited) if awaited else results

    def _complete_items(
        self, items: Iterator[Any], results: list[Any], awaited: list[int], path: Path, run: Run, info: Any
    ) -> None:
        """Append the completed items to `results`, and the indexes of those that are coroutines to `awaited`."""
        finish = self._item.finish
        for index, item in enumerate(items, len(results)):
            result = finish(item, (path, index, None), run, info)
            results.append(result)
            if result.__class__ is CoroutineType:
                awaited.append(index)

    async def _complete_long(
        self, value: Collection[Any], long: LongLists, path: Path, run: Run, info: Any
    ) -> list[Any]:
        results: list[Any] = []
        awaited: list[int] = []
        items = iter(value)
        count = -1
        try:
            while len(results) > count:  # the last part was not empty
                started, count = time.perf_counter(), len(results)
                self._complete_items(islice(items, long.items_per_turn), results, awaited, path, run, info)
                if len(results) < len(value):
                    await long.pause(time.perf_counter() - started)
        except Exception:
            settle_rest(items, [results[index] for index in awaited])
            raise
        return await await_all(results, awaited) if awaited else results

    async def _complete_async(self, value: AsyncIterable[Any], path: Path, run: Run, info: Any) -> list[Any]:
        results: list[Any] = []
        awaited: list[int] = []
        items = aiter(value)
        try:
            while True:
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    break
                except Exception as error:
                    raise self.site.locate(error, self.site.nodes, path_keys(path)) from error
                self._complete_items(iter((item,)), results, awaited, path, run, info)
        except Exception:
            with suppress(Exception):
                await items.aclose()  # type: ignore[attr-defined]  # not all iterators have it
            if awaited:
                settle([results[index] for index in awaited])
            raise
        return await await_all(results, awaited) if awaited else results
