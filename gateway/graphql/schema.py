"""The merged graph, with what every execution of it needs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Self

import strawberry
from graphql import DocumentNode, GraphQLError, GraphQLSchema, parse, specified_rules
from strawberry.extensions import SchemaExtension
from strawberry.schema.schema import validate_document

from gateway.composition import compose
from gateway.errors import graphql_error
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from subgraphs.bank.graph import AccountLoader, TransferLoader, account_loader, transfer_loader
from subgraphs.card.client import CardClient
from subgraphs.card.graph import TopUpLoader, top_up_loader

_CACHED_DOCUMENTS: Final = 1_000
"""Texts that are kept, parsed and validated: without them a mutation takes three times as long."""


_LITERALS: Final = re.compile(r'"|\d{3}')


def _read(schema: GraphQLSchema, text: str) -> tuple[DocumentNode, list[GraphQLError]]:
    """The document, and what is not valid about it."""
    document = parse(text)
    return document, validate_document(schema, document, tuple(specified_rules))


_read_once: Final = lru_cache(maxsize=_CACHED_DOCUMENTS)(_read)


class Documents(SchemaExtension):
    """Parses and validates each text once, but for one with values written into it: that may hold a card's number, and
    it seldom comes again. Texts that take their values by variables do.

    Strawberry's own two caches do it in two steps, and the second looks its document up by a hash of all of its nodes.
    """

    def on_parse(self) -> Iterator[None]:  # noqa: D102
        context = self.execution_context
        if context.query:
            read = _read if _LITERALS.search(context.query) else _read_once
            context.graphql_document, context.pre_execution_errors = read(context.schema._schema, context.query)  # noqa: SLF001  as Strawberry's caches
        yield


class StableErrors(SchemaExtension):
    """Every error of a stream leaves as `graphql_error` makes it. `responses.formatted` does it for the others."""

    def on_stream_result(self, result: Any) -> Iterator[None]:  # noqa: D102
        if result.errors:
            result.errors = [graphql_error(error) for error in result.errors]
        yield


def build_schema() -> strawberry.Schema:
    """The merged graph with what every execution of it needs."""
    return compose(extensions=[Documents, StableErrors])


@dataclass(slots=True)
class Context:
    """What resolvers need of one request, or of one WebSocket connection."""

    bank: BankClient
    analytics: AnalyticsClient
    card: CardClient
    accounts: AccountLoader
    transfers: TransferLoader
    top_ups: TopUpLoader
    connection_params: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def over(cls, bank: BankClient, analytics: AnalyticsClient, card: CardClient) -> Self:
        """A new one over the services, with loaders of its own."""
        return cls(bank, analytics, card, account_loader(bank), transfer_loader(bank), top_up_loader(card))
