"""Generated operations that are valid for the merged graph, with their variables."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from graphql import (
    GraphQLField,
    GraphQLNamedType,
    GraphQLObjectType,
    get_named_type,
    is_composite_type,
    is_enum_type,
    is_interface_type,
    is_object_type,
)
from hypothesis import strategies as st

from tests.unit.gateway.graphql.policies import SCHEMA

_ID: Final = "123e4567-e89b-12d3-a456-426614174000"
_SINCE: Final = datetime(2026, 1, 1, tzinfo=UTC)
_MAX_DEPTH: Final = 6


class _Operation:
    """Draws the selections of one operation and the variables that they use."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.variables: dict[str, Any] = {}
        self.definitions: list[str] = []
        self._aliases = 0
        self._filter_variable = ""

    def selections(self, type_: GraphQLNamedType, depth: int) -> str:
        parts = ["__typename"] if self._draw(st.booleans()) else []
        if is_object_type(type_):
            fields = [(name, each) for name, each in type_.fields.items() if depth < _MAX_DEPTH or _is_leaf(each)]
            chosen = self._draw(st.lists(st.sampled_from(fields), min_size=1, max_size=4)) if fields else []
            parts += [self._field(name, each, depth) for name, each in chosen]
        elif is_interface_type(type_):
            possible = self._draw(st.lists(st.sampled_from(SCHEMA.get_possible_types(type_)), max_size=2))
            parts += [f"... on {each.name} {self.selections(each, depth)}" for each in possible]
        return "{ " + " ".join(parts or ["__typename"]) + " }"

    def _field(self, name: str, field: GraphQLField, depth: int) -> str:
        self._aliases += 1
        below = "" if _is_leaf(field) else self.selections(get_named_type(field.type), depth + 1)
        return f"a{self._aliases}: {name}{self._arguments(name, field, depth)}{self._directive()} {below}"

    def _directive(self) -> str:
        condition = self._draw(st.sampled_from((None, None, None, True, False)))
        if condition is None:
            return ""
        name = self._draw(st.sampled_from(("skip", "include")))
        return f" @{name}(if: {self._value('Boolean!', condition)})"

    def _arguments(self, name: str, field: GraphQLField, depth: int) -> str:
        given: dict[str, Any] = {}
        if "id" in field.args:
            given["id"] = _ID
        if "reference" in field.args:
            given["reference"] = "INV-1"
        if "ids" in field.args:
            given["ids"] = [_ID] * self._draw(st.integers(1, 5))
        if name == "balanceAt":
            points: tuple[dict[str, Any], ...] = ({"version": 1}, {"time": _SINCE.isoformat()})
            given |= self._draw(st.sampled_from(points))
        if name == "statistics":
            hours = self._draw(st.integers(1, 900 if depth == 1 else 5))
            granularity = self._draw(st.sampled_from(("HOUR", "DAY", "WEEK", "MONTH")))
            since = _SINCE + timedelta(minutes=self._draw(st.integers(0, 10_000)))
            given |= {"from": since.isoformat(), "to": (since + timedelta(hours=hours)).isoformat()}
            given["granularity"] = granularity
        elif "first" in field.args:
            way = self._draw(st.sampled_from([each for each in ("first", "last") if each in field.args]))
            size = self._draw(st.sampled_from((..., None, 1, 2, 7) if depth <= 1 else (1, 2, 3)))
            if size is not ...:
                given[way] = size
        filters = [f"filter: {self._filter()}"] if "filter" in field.args and self._draw(st.booleans()) else []
        texts = filters + [f"{key}: {self._value(str(field.args[key].type), value)}" for key, value in given.items()]
        return f"({', '.join(texts)})" if texts else ""

    def _filter(self) -> str:
        """Return a filter of up to some thousand bytes: a literal, or the variable that all filters share."""
        if self._draw(st.booleans()):
            return "{ types: [" + "TOP_UP, " * self._draw(st.sampled_from((0, 1, 2, 300))) + "] }"
        if not self._filter_variable:
            self._filter_variable = "$filter"
            types = ["TRANSFER"] * self._draw(st.sampled_from((0, 1, 2, 100, 3_000)))
            amount = "9" * self._draw(st.sampled_from((1, 2_000)))
            if self._draw(st.booleans()):
                self.variables["filter"] = {"types": types, "minAmount": amount}
                self.definitions.append("$filter: OperationFilter")
            else:
                literal = f'{{ types: [{", ".join(types)}], minAmount: "{amount}" }}'
                self.definitions.append(f"$filter: OperationFilter = {literal}")
        return self._filter_variable

    def _value(self, type_: str, value: Any) -> str:
        """Return a literal, or a variable that has the value, or a variable that has it as its default."""
        is_enum = is_enum_type(SCHEMA.type_map[type_.strip("[]!")])
        literal = str(value) if is_enum or isinstance(value, int) else json.dumps(value)
        literal = "null" if value is None else literal.lower() if isinstance(value, bool) else literal
        kind = self._draw(st.sampled_from(("literal", "variable", "default")))
        if kind == "literal":
            return literal
        name = f"v{len(self.definitions)}"
        if kind == "variable":
            self.variables[name] = value
            self.definitions.append(f"${name}: {type_}")
        else:
            self.definitions.append(f"${name}: {type_} = {literal}")
        return f"${name}"


def _is_leaf(field: GraphQLField) -> bool:
    return not is_composite_type(get_named_type(field.type))


@st.composite
def valid_queries(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return the text and the variables of a query.

    Of required arguments, only `id`, `reference` and those of `balanceAt` and `statistics` are supported, because the
    graph has no others.
    """
    operation = _Operation(draw)
    query = SCHEMA.query_type
    assert isinstance(query, GraphQLObjectType)
    body = operation.selections(query, 0)
    definitions = f"({', '.join(operation.definitions)})" if operation.definitions else ""
    return f"query{definitions} {body}", operation.variables
