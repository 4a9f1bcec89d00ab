"""The merged graph, with what every execution of it needs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

import strawberry
from graphql import DocumentNode, GraphQLError, GraphQLSchema, OperationDefinitionNode, parse, specified_rules
from strawberry.extensions import SchemaExtension
from strawberry.schema.schema import validate_document

from gateway.composition import compose
from gateway.errors import graphql_error
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from subgraphs.bank.graph import AccountLoader, account_loader

_CACHED_DOCUMENTS: Final = 1_000
"""Texts that are kept, parsed and validated: without them a mutation takes three times as long."""


class _Document(NamedTuple):
    """A text, parsed, and what is not valid about it."""

    node: DocumentNode
    errors: list[GraphQLError]
    operations: int


@lru_cache(maxsize=_CACHED_DOCUMENTS)
def _read(schema: GraphQLSchema, text: str) -> _Document:
    node = parse(text)
    operations = sum(isinstance(each, OperationDefinitionNode) for each in node.definitions)
    return _Document(node, validate_document(schema, node, tuple(specified_rules)), operations)


class PerExecution(SchemaExtension):
    """Parses and validates each text once, and makes the errors of streams stable.

    One extension, since each costs every execution. Strawberry's own two caches would not do: the one of what is valid
    looks each document up by a hash of all its nodes.
    """

    def on_parse(self) -> Iterator[None]:
        """Sets the document and its errors.

        Raises:
            GraphQLError: the text is no document, or nothing says which of its operations is meant.
        """
        context = self.execution_context
        if context.query:
            document = _read(context.schema._schema, context.query)  # noqa: SLF001  as Strawberry's caches do
            if document.operations > 1 and not context._provided_operation_name:  # noqa: SLF001  Strawberry takes the first
                raise GraphQLError("`operationName` must say which operation is meant")
            context.graphql_document, context.pre_execution_errors = document.node, document.errors
        yield

    def on_stream_result(self, result: Any) -> Iterator[None]:
        """Every error leaves as `graphql_error` makes it; `responses.formatted` does that for what is no stream."""
        if result.errors:
            result.errors = [graphql_error(error) for error in result.errors]
        yield


def build_schema() -> strawberry.Schema:
    """The merged graph with what every execution of it needs."""
    return compose(extensions=[PerExecution])


@dataclass(slots=True)
class Context:
    """What resolvers need of one request, or of one WebSocket connection."""

    bank: BankClient
    analytics: AnalyticsClient
    accounts: AccountLoader
    connection_params: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def over(cls, bank: BankClient, analytics: AnalyticsClient) -> Self:
        """A new one over the services, with loaders of its own."""
        return cls(bank, analytics, account_loader(bank))
