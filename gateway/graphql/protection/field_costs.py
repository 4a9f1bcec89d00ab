"""Costs of the fields of one operation, evaluated for each execution."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from graphql import VariableNode

from gateway.graphql.protection.prices import ROW_COST, argument_cost

MAX_COST: Final = 2**31 - 1
"""Upper bound of every cost: the largest 32-bit integer, which every client can read."""

Variables = Mapping[str, Any]
"""Values of an operation's variables, by name."""


@dataclass(frozen=True, slots=True)
class Size:
    """Expected number of items of a list.

    Attributes:
        assumed: size if no argument gives one.
        arguments: values of the arguments that the size depends on, by name; variables are nodes.
        defaults: defaults of the arguments, for variables without a value.
        bound: computes the size from the arguments. None: the largest argument is the size.
    """

    assumed: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    bound: Callable[[Mapping[str, Any]], int] | None = None

    @property
    def is_fixed(self) -> bool:
        """True if the size depends on no variable."""
        return not any(isinstance(each, VariableNode) for each in self.arguments.values())

    def evaluate(self, variables: Variables) -> int:
        """Return the number of items.

        Args:
            variables: values of the variables. They need not be valid.
        """
        values = {
            name: variables.get(each.name.value, self.defaults[name]) if isinstance(each, VariableNode) else each
            for name, each in self.arguments.items()
        }
        if self.bound is not None:
            return self.bound(values)
        sizes = [
            len(each) if isinstance(each, list) else each
            for each in values.values()
            if isinstance(each, list | int | float)
        ]
        return max(0, int(min(max(sizes), MAX_COST))) if sizes else self.assumed


@dataclass(frozen=True, slots=True)
class Arguments:
    """Arguments of a selected field.

    Attributes:
        literal_size: number of characters of the arguments in the document.
        references: names of the variables in the arguments, once for each use.
    """

    literal_size: int = 0
    references: Sequence[str] = ()

    def cost(self, sizes: Mapping[str, int]) -> int:
        """Return the cost of one execution.

        Args:
            sizes: sizes of the variables, in bytes.
        """
        return argument_cost(self.literal_size + sum(sizes.get(name, 0) for name in self.references))


@dataclass(frozen=True, slots=True)
class FieldCost:
    """Cost of one selected field.

    Attributes:
        key: key in the response.
        weight: cost of one item without the fields below.
        size: expected number of items; None for a field that is not a list.
        rows: expected number of rows that the field reads for the lists in its `sizedFields`; None if it has no such
            list.
        is_sized: the field is one of the `sizedFields` of the field above.
        conditions: `@skip` and `@include` with variables: name of the variable, and the value that keeps the field.
        arguments: arguments of the field.
        fields: costs of the fields below.
        has_references: the arguments of the field, or of a field below, contain variables.
        is_certain: the field is not a list, is never null or left out, and always has the same cost.
        unit_cost: actual cost of one item with all fields below; None if items differ in cost.
        fixed: the estimate if the sizes of variables add nothing to it; None if it depends on the values of variables.
    """

    key: str
    weight: int
    size: Size | None
    rows: Size | None
    is_sized: bool
    conditions: Sequence[tuple[str, bool]]
    arguments: Arguments
    fields: Sequence["FieldCost"]
    is_certain: bool
    unit_cost: int | None
    fixed: int | None = field(init=False)
    has_references: bool = field(init=False)

    def __post_init__(self) -> None:
        below = fixed_estimate(self.fields)
        is_fixed = below is not None and not self.conditions
        is_fixed = is_fixed and all(each is None or each.is_fixed for each in (self.size, self.rows))
        object.__setattr__(self, "fixed", self._sum({}, {}) if is_fixed else None)
        has_references = bool(self.arguments.references) or any(each.has_references for each in self.fields)
        object.__setattr__(self, "has_references", has_references)

    def estimate(self, variables: Variables, sizes: Mapping[str, int]) -> int:
        """Return the estimated cost of the field with all its items.

        Args:
            variables: values of the variables.
            sizes: sizes of the variables in bytes; empty if they add nothing to the cost.
        """
        if self.fixed is not None and not (sizes and self.has_references):
            return self.fixed
        if any(variables.get(name) is not keeping for name, keeping in self.conditions):
            return 0
        return self._sum(variables, sizes)

    def _sum(self, variables: Variables, sizes: Mapping[str, int]) -> int:
        count = 1 if self.size is None else self.size.evaluate(variables)
        rows = 0 if self.rows is None else self.rows.evaluate(variables)
        below = sum(each.estimate(variables, sizes) for each in self.fields)
        return self.arguments.cost(sizes) + count * (self.weight + ROW_COST * rows + below)

    def measure(self, item: Mapping[str, Any]) -> int:
        """Return the actual cost of one item. Rows are counted only if the response has one of the `sizedFields`."""
        rows = 0
        if self.rows is not None:
            rows = max((len(item.get(each.key) or ()) for each in self.fields if each.is_sized), default=0)
        return self.weight + ROW_COST * rows + measure_fields(self.fields, item)


def fixed_estimate(fields: Sequence[FieldCost]) -> int | None:
    """Return the sum of the estimates, or None if one of them depends on variables."""
    sums = [each.fixed for each in fields]
    return None if None in sums else sum(each for each in sums if each is not None)


def measure_fields(fields: Sequence[FieldCost], data: Mapping[str, Any]) -> int:
    """Return the actual cost of the fields of one object of a response."""
    total = 0
    for each in fields:
        value = data.get(each.key)
        if value is None:
            continue
        if each.unit_cost is not None:
            total += each.unit_cost if each.size is None else each.unit_cost * len(value)
        elif each.size is None:
            total += each.measure(value)
        else:
            total += sum(each.measure(item) for item in value if item is not None)
    return total
