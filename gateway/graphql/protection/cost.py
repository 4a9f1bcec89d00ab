"""Cost of an operation, by `@cost` and `@listSize` on the graph's fields.

The directives are IBM's GraphQL Cost Directives (https://ibm.github.io/graphql-specs/cost-spec.html). The costs are
added up by the rules of Apollo Router, with some additions:

- A field costs 1, a field with a resolver 10, unless it has `@cost`. In the subgraphs' SDL, `@cost` is on the fields
  whose cost differs from the specification's default: 1 for an object, 0 for a leaf. A unit is about 3 µs of the
  gateway's time.
- A list costs as much as its items. Its size comes from its slicing arguments, else from its assumed size, else it is
  10. `sizedFields` applies the size to lists one level below, such as a connection's `edges`.
  An `ArgumentSize` in the field's metadata is the size of a list that `@listSize` cannot express.
- A field with `sizedFields` costs `ROW_COST` for each row in addition, whatever fields are selected: the rows are read
  and converted in any case. The directives cannot express this.
- Each 32 characters of a response key cost 1, for each item that has the key.
- An event of a subscription costs 60 in addition.
- The arguments of a field cost 1 for each 32 bytes above 1 KiB, each time that the field is executed: a variable is
  converted and sent at each of its uses. Arguments count in the estimate only.
- Introspection costs 1 for each field of its response, and 1 for each 32 bytes of descriptions (`introspection`).

A field that is selected in several places is counted in each. Sizes are upper bounds, so the actual cost is never above
the estimate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from graphql import DocumentNode, GraphQLSchema
from graphql.language import OperationDefinitionNode, OperationType

from gateway.graphql.protection.cost_planner import FieldPlanner, literal_size, literal_value
from gateway.graphql.protection.field_costs import MAX_COST, Variables, fixed_estimate, measure_fields
from gateway.graphql.protection.prices import FREE_ARGUMENT_BYTES

_EVENT_COST: Final = 60
"""Cost of an event of a subscription without its fields: reading and sending it takes 180 µs."""


@dataclass(slots=True)
class RequestCost:
    """Total cost of the operations of one request.

    Attributes:
        estimated: cost before execution.
        actual: cost of the results.
    """

    estimated: int = 0
    actual: int = 0


class OperationCost:
    """Cost of one operation of a valid document.

    The costs of its fields are planned once. Each execution evaluates only the variables.

    Attributes:
        operation: AST of the operation.
        operation_type: query, mutation or subscription.
        type_name: the operation type as a text.
        name: name of the operation, if it has one.
    """

    def __init__(self, schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> None:
        """Args:
        schema: schema that the document is valid for.
        document: document of the operation.
        operation: operation in the document.
        """
        self.operation = operation
        self.operation_type = operation.operation
        self.type_name: str = operation.operation.value
        self.name = operation.name.value if operation.name else None
        self._base = _EVENT_COST if operation.operation is OperationType.SUBSCRIPTION else 0
        self._defaults = {
            each.variable.name.value: literal_value(each.default_value)
            for each in operation.variable_definitions or ()
            if each.default_value
        }
        self._default_sizes = {
            each.variable.name.value: literal_size(each.default_value)
            for each in operation.variable_definitions or ()
            if each.default_value
        }
        root = schema.get_root_type(operation.operation)
        planner = FieldPlanner(schema, document)
        self._fields = tuple(planner.plan(root, operation.selection_set, {}))
        self._max_references = planner.max_references
        self._free_bytes = FREE_ARGUMENT_BYTES - planner.max_literal_size
        fixed = fixed_estimate(self._fields)
        self._fixed = None if fixed is None else min(MAX_COST, self._base + fixed)

    def estimate(self, variables: Variables | None) -> int:
        """Return the estimated cost.

        Args:
            variables: variables of the execution. They need not be valid.
        """
        sizes = self._argument_sizes(variables)
        if self._fixed is None or sizes:
            values = self._defaults | dict(variables or {})
            return min(MAX_COST, self._base + sum(each.estimate(values, sizes) for each in self._fields))
        return self._fixed

    def _argument_sizes(self, variables: Variables | None) -> Mapping[str, int]:
        """Return the sizes of the variables in bytes; an empty mapping if variables cannot add to the cost of a field.

        This is so if the longest field stays within the free bytes (`FREE_ARGUMENT_BYTES`): its literal arguments, and
        the size of all variables times the highest number of variables in a field.
        """
        if not self._max_references:
            return {}
        total = (_json_size(variables) if variables else 0) + sum(self._default_sizes.values())
        if total * self._max_references <= self._free_bytes:
            return {}
        return self._default_sizes | {name: _json_size(value) for name, value in (variables or {}).items()}

    def measure(self, data: Mapping[str, Any] | None) -> int:
        """Return the actual cost. Nulls cost nothing.

        Args:
            data: `data` of the response.
        """
        return self._base + measure_fields(self._fields, data) if data else 0


def _json_size(value: Any) -> int:
    """Return the number of bytes of a JSON value."""
    try:
        return len(orjson.dumps(value))
    except TypeError:  # nested too deeply
        return MAX_COST
