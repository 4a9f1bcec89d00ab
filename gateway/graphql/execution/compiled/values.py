"""Completion of values: what a resolver returns becomes a part of the response."""

from collections.abc import Awaitable
from types import CoroutineType, GeneratorType
from typing import Any

from graphql import FieldNode, Undefined
from graphql.pyutils import is_awaitable

from gateway.graphql.execution.compiled.errors import FieldErrors, Locate, Path, path_keys
from gateway.graphql.execution.compiled.leaves import CompleteLeaf
from gateway.graphql.execution.compiled.run import Run


def is_plain(value: Any) -> bool:
    """Return whether all values of the same class can be completed at once, without a look at their kind.

    They are neither null nor errors nor awaitable. A generator may be awaitable or not.
    """
    if value is None or value is Undefined or isinstance(value, Exception | GeneratorType):
        return False
    return not is_awaitable(value)


class ValueSite:
    """Where values come from, for the errors of a field and of the items of its lists.

    Attributes:
        name: name of the field with its type, for messages.
        nodes: nodes of the field.
        locate: builds the errors of the response.
    """

    __slots__ = ("locate", "name", "nodes")

    def __init__(self, name: str, nodes: list[FieldNode], locate: Locate) -> None:
        self.name = name
        self.nodes = nodes
        self.locate = locate


class ValuePlan:
    """Plan of the values of a field, or of the items of a list.

    Attributes:
        site: where the values come from.
        is_non_null: the value must not be null, so its error makes the parent null.
        plain_class: class of the last value that was plain (`is_plain`). Most values of a field have the same class,
            so they are not checked again.
    """

    __slots__ = ("is_non_null", "plain_class", "site")

    def __init__(self, site: ValueSite, *, is_non_null: bool) -> None:
        self.site = site
        self.is_non_null = is_non_null
        self.plain_class: type | None = None

    def complete(self, value: Any, path: Path, run: Run, info: Any) -> Any:
        """Return the completed value, or a coroutine of it.

        Args:
            value: a value that is neither null nor awaitable nor an exception.
            path: place of the value.
            run: the execution.
            info: `info` of the field; None if no function of the field's type reads it.
        """
        raise NotImplementedError

    def finish(self, value: Any, path: Path, run: Run, info: Any) -> Any:
        """Return the completed value of any value, or a coroutine of it. An error makes it null, or is raised."""
        try:
            if value.__class__ is self.plain_class:
                result = self.complete(value, path, run, info)
            elif is_awaitable(value):
                return self._finish_later(value, path, run, info)
            else:
                result = self._complete(value, path, run, info)
        except Exception as error:  # noqa: BLE001
            return self.fail(error, path, run.errors)
        return self.await_result(result, path, run) if result.__class__ is CoroutineType else result

    def fail(self, error: Exception, path: Path, errors: FieldErrors) -> None:
        """Handle an error of the value: return None if the value may be null, and raise the error otherwise."""
        try:
            error = self.site.locate(error, self.site.nodes, path_keys(path))
            if self.is_non_null:
                raise error
            errors.add(error, path)
        finally:
            del error  # its traceback refers to this frame: a cycle

    def _complete(self, value: Any, path: Path, run: Run, info: Any) -> Any:
        if value is None or value is Undefined:
            if self.is_non_null:
                raise TypeError(f"Cannot return null for non-nullable field {self.site.name}.")
            return None
        if isinstance(value, Exception):
            raise value
        if is_plain(value):
            self.plain_class = value.__class__
        return self.complete(value, path, run, info)

    async def _finish_later(self, value: Awaitable[Any], path: Path, run: Run, info: Any) -> Any:
        try:
            result = self._complete(await value, path, run, info)
            return await result if result.__class__ is CoroutineType else result
        except Exception as error:  # noqa: BLE001
            return self.fail(error, path, run.errors)

    async def await_result(self, result: Awaitable[Any], path: Path, run: Run) -> Any:
        """Await the rest of the completion of a value. An error makes it null, or is raised."""
        try:
            return await result
        except Exception as error:  # noqa: BLE001
            return self.fail(error, path, run.errors)


class LeafPlan(ValuePlan):
    """Plan of scalars or enums."""

    __slots__ = ("_complete_leaf",)

    def __init__(self, site: ValueSite, complete_leaf: CompleteLeaf, *, is_non_null: bool) -> None:
        super().__init__(site, is_non_null=is_non_null)
        self._complete_leaf = complete_leaf

    def complete(self, value: Any, _path: Path, _run: Run, _info: Any) -> Any:
        """Return the value as the type of the field represents it."""
        return self._complete_leaf(value)
