"""The merged graph, with what every execution of it needs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import strawberry
from strawberry.extensions import SchemaExtension

from gateway.composition import compose
from gateway.errors import OperationRefused
from gateway.graphql.cost import Cost, Spent
from gateway.graphql.documents import Reader
from gateway.graphql.limits import Limits
from gateway.graphql.metrics import Names, Operations
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from subgraphs.bank.graph import AccountLoader, TransferLoader, account_loader, transfer_loader
from subgraphs.card.client import CardClient
from subgraphs.card.graph import TopUpLoader, top_up_loader


@dataclass(slots=True)
class Context:
    """What resolvers need of one request, or of one WebSocket connection."""

    bank: BankClient
    analytics: AnalyticsClient
    card: CardClient
    accounts: AccountLoader
    transfers: TransferLoader
    top_ups: TopUpLoader
    spent: Spent = field(default_factory=Spent)
    connection_params: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def over(cls, bank: BankClient, analytics: AnalyticsClient, card: CardClient) -> Self:
        """A new one over the services, with loaders of its own."""
        return cls(bank, analytics, card, account_loader(bank), transfer_loader(bank), top_up_loader(card))


class Documents(SchemaExtension):
    """Reads what is to be executed, holds it against its limits, and adds to its context's `spent` what it costs.

    Strawberry's own caches read in two steps, and the second looks its document up by a hash of all of its nodes.
    """

    def __init__(self, reader: Reader, limits: Limits) -> None:
        self._reader = reader
        self._limits = limits
        self._cost: Cost | None = None

    def on_parse(self) -> Iterator[None]:  # noqa: D102
        context = self.execution_context
        document = self._reader.read(context.schema._schema, context.query or "")  # noqa: SLF001  as Strawberry's caches
        context.graphql_document, context.pre_execution_errors = document.node, document.errors
        self._cost = document.costs.get(context.operation_name)
        if self._cost is not None:
            estimated = self._cost.estimated(context.variables)
            context.context.spent.estimated += estimated
            if estimated > self._limits.cost:
                raise _too_expensive(estimated, self._limits.cost)
        yield

    def on_operation(self) -> Iterator[None]:  # noqa: D102
        yield
        result = self.execution_context.result
        if self._cost is not None and result is not None:
            self.execution_context.context.spent.actual += self._cost.actual(result.data)


def build_schema(
    limits: Limits,
    *,
    production: bool,
    names: Names,
) -> strawberry.Schema:
    """The merged graph with what every execution of it needs.

    Args:
        limits: of each operation.
        production: tells nothing of what is in the graph: neither by introspection nor by suggestions.
        names: of operations that metrics tell apart.
    """
    reader = Reader(limits, introspection=not production)
    extensions: list[Callable[[], SchemaExtension]] = [
        partial(Operations, names, suggestions=not production),
        partial(Documents, reader, limits),
    ]
    return compose(extensions)


def _too_expensive(estimated: int, allowed: int) -> OperationRefused:
    message = f"the operation may cost {estimated}, and {allowed} is allowed: ask for fewer items at once"
    return OperationRefused("GRAPHQL_COST_EXCEEDED", message, estimated=estimated, allowed=allowed)
