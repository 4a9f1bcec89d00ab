"""Completion of objects, interfaces and unions."""

from collections.abc import Mapping
from types import CoroutineType
from typing import Any

from graphql import (
    GraphQLAbstractType,
    GraphQLError,
    GraphQLObjectType,
    GraphQLSchema,
    default_type_resolver,
    is_object_type,
)
from graphql.pyutils import inspect, is_awaitable

from gateway.graphql.execution.compiled.errors import Path
from gateway.graphql.execution.compiled.fields import ExecuteObject
from gateway.graphql.execution.compiled.objects import FieldsPlan
from gateway.graphql.execution.compiled.run import Run
from gateway.graphql.execution.compiled.values import ValuePlan, ValueSite


class ObjectPlan(ValuePlan):
    """Plan of objects of one type.

    Attributes:
        execute: executes the fields of an object; None if the type of the object has to be checked before.
    """

    __slots__ = ("_fields", "_type", "execute")

    def __init__(self, site: ValueSite, type_: GraphQLObjectType, fields: FieldsPlan, *, is_non_null: bool) -> None:
        """Args:
        site: where the objects come from.
        type_: type of the objects.
        fields: plan of their fields.
        is_non_null: the object must not be null.
        """
        super().__init__(site, is_non_null=is_non_null)
        self._type = type_
        self._fields = fields
        self.execute: ExecuteObject | None = fields.execute if type_.is_type_of is None else None

    def finish(self, value: Any, path: Path, run: Run, info: Any) -> Any:
        """Finish any value, as `ValuePlan` describes. For most objects, this is shorter than the general way."""
        if value.__class__ is not self.plain_class or self.execute is None:
            return super().finish(value, path, run, info)
        try:
            result = self.execute(value, path, run)
        except Exception as error:  # noqa: BLE001
            return self.fail(error, path, run.errors)
        return self.await_result(result, path, run) if result.__class__ is CoroutineType else result

    def complete(self, value: Any, path: Path, run: Run, info: Any) -> Any:
        """Return the fields of an object, if the object is of the type."""
        if self._type.is_type_of is None:
            return self._fields.execute(value, path, run)
        is_type = self._type.is_type_of(value, info)
        if is_awaitable(is_type):
            return self._complete_later(is_type, value, path, run)
        if not is_type:
            raise self._wrong_type(value)
        return self._fields.execute(value, path, run)

    async def _complete_later(self, is_type: Any, value: Any, path: Path, run: Run) -> Any:
        if not await is_type:
            raise self._wrong_type(value)
        result = self._fields.execute(value, path, run)
        return await result if result.__class__ is CoroutineType else result

    def _wrong_type(self, value: Any) -> GraphQLError:
        return GraphQLError(f"Expected value of type '{self._type}' but got: {inspect(value)}.", self.site.nodes)


class AbstractPlan(ValuePlan):
    """Plan of values of an interface or a union."""

    __slots__ = ("_objects", "_schema", "_type")

    def __init__(
        self,
        site: ValueSite,
        schema: GraphQLSchema,
        type_: GraphQLAbstractType,
        objects: Mapping[str, ObjectPlan],
        *,
        is_non_null: bool,
    ) -> None:
        """Args:
        site: where the values come from.
        schema: the schema.
        type_: the interface or union.
        objects: plans of its possible types, by name.
        is_non_null: the value must not be null.
        """
        super().__init__(site, is_non_null=is_non_null)
        self._schema = schema
        self._type = type_
        self._objects = objects

    def complete(self, value: Any, path: Path, run: Run, info: Any) -> Any:
        """Return the fields of an object of one of the possible types."""
        resolve_type = self._type.resolve_type or default_type_resolver
        name = resolve_type(value, info, self._type)
        if is_awaitable(name):
            return self._complete_later(name, value, path, run, info)
        return self._find(name, value).complete(value, path, run, info)

    async def _complete_later(self, name: Any, value: Any, path: Path, run: Run, info: Any) -> Any:
        result = self._find(await name, value).complete(value, path, run, info)
        return await result if result.__class__ is CoroutineType else result

    def _find(self, name: Any, value: Any) -> ObjectPlan:
        found = self._objects.get(name) if isinstance(name, str) else None
        if found is None:
            raise GraphQLError(self._unusable(name, value), self.site.nodes)
        return found

    def _unusable(self, name: Any, value: Any) -> str:
        """Return the message for an invalid name of a type."""
        type_ = self._type
        must_resolve = f"Abstract type '{type_}' must resolve to an Object type at runtime for field '{self.site.name}'"
        if name is None:
            return (
                f"{must_resolve}. Either the '{type_}' type should provide a 'resolve_type' function"
                " or each possible type should provide an 'is_type_of' function."
            )
        if not isinstance(name, str):
            received = f"received '{inspect(name)}', which is not a valid Object type name."
            return f"{must_resolve} with value {inspect(value)}, {received}"
        runtime_type = self._schema.get_type(name)
        if runtime_type is None:
            return f"Abstract type '{type_}' was resolved to a type '{name}' that does not exist inside the schema."
        if not is_object_type(runtime_type):
            return f"Abstract type '{type_}' was resolved to a non-object type '{name}'."
        return f"Runtime Object type '{runtime_type}' is not a possible type for '{type_}'."
