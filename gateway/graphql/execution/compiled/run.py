"""State of one execution."""

from collections.abc import Callable
from typing import Any, TypeAlias

from graphql import VariableValues

from gateway.graphql.execution.compiled.errors import FieldErrors

NewInfo: TypeAlias = Callable[..., Any]
"""Builds the `info` of a resolver from the members of graphql-core's `GraphQLResolveInfo`, in their order."""


class Run:
    """State of one execution. A plan receives it, so that one plan serves all executions.

    Attributes:
        variables: coerced variables.
        root_value: source of the root fields.
        context: context of the resolvers.
        new_info: builds the `info` of resolvers.
        errors: errors of the fields.
    """

    __slots__ = ("context", "errors", "new_info", "root_value", "variables")

    def __init__(self, variables: VariableValues, root_value: Any, context: Any, new_info: NewInfo) -> None:
        self.variables = variables
        self.root_value = root_value
        self.context = context
        self.new_info = new_info
        self.errors = FieldErrors()
