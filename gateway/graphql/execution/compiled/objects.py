"""Execution of the fields of an object."""

from collections.abc import Sequence
from types import CoroutineType
from typing import Any, Protocol

from gateway.graphql.execution.compiled.awaiting import await_all, settle
from gateway.graphql.execution.compiled.errors import Path
from gateway.graphql.execution.compiled.fields import FieldPlan
from gateway.graphql.execution.compiled.run import Run


class FieldsPlan(Protocol):
    """Plan of the selected fields of an object type."""

    def execute(self, source: Any, path: Path | None, run: Run) -> Any:
        """Return the object of the response, or a coroutine of it. Raise the error of a field that must not be null.

        Args:
            source: the object.
            path: place of the object in the response; None for the root.
            run: the execution.
        """


class ConcurrentFields:
    """Fields that are executed concurrently: all resolvers are called before any of them is awaited."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Sequence[FieldPlan]) -> None:
        self._fields = tuple((each.key, each.read, each.exact_class, each.finish, each.fail) for each in fields)

    def execute(self, source: Any, path: Path | None, run: Run) -> Any:
        """Execute the fields, as `FieldsPlan` describes."""
        results: dict[str, Any] = {}
        awaited: list[str] = []
        try:
            for key, read, exact_class, finish, fail in self._fields:
                if read is None:
                    value = finish(source, path, run)
                else:
                    try:
                        value = read(source)
                    except Exception as error:  # noqa: BLE001
                        value = fail(error, path, run)
                    else:
                        if value.__class__ is not exact_class:
                            value = finish(value, path, run)
                results[key] = value
                if value.__class__ is CoroutineType:
                    awaited.append(key)
        except Exception:
            if awaited:
                settle([results[key] for key in awaited])
            raise
        return await_all(results, awaited) if awaited else results


class SerialFields:
    """Fields of a mutation: each is executed when the one before it is complete."""

    __slots__ = ("_steps",)

    def __init__(self, fields: Sequence[FieldPlan]) -> None:
        self._steps = [ConcurrentFields([field]) for field in fields]

    def execute(self, source: Any, path: Path | None, run: Run) -> Any:
        """Execute the fields, as `FieldsPlan` describes."""
        results: dict[str, Any] = {}
        for number, step in enumerate(self._steps, 1):
            result = step.execute(source, path, run)
            if result.__class__ is CoroutineType:
                return self._continue(results, result, number, source, path, run)
            results.update(result)
        return results

    async def _continue(
        self, results: dict[str, Any], result: Any, number: int, source: Any, path: Path | None, run: Run
    ) -> dict[str, Any]:
        results.update(await result)
        for step in self._steps[number:]:
            result = step.execute(source, path, run)
            results.update(await result if result.__class__ is CoroutineType else result)
        return results
