"""Part of the request context that the resolvers use."""

from typing import Protocol

import strawberry

from subgraphs.analytics.client import AnalyticsClient
from subgraphs.analytics.graph.loaders import OperationPageLoader, StatisticsLoader
from subgraphs.bank.client import BankClient


class Clients(Protocol):
    """gRPC clients that the subscriptions take from the request context."""

    @property
    def analytics(self) -> AnalyticsClient: ...

    @property
    def bank(self) -> BankClient: ...


class Context(Clients, Protocol):
    """Attributes of the request context that the resolvers use."""

    @property
    def operation_pages(self) -> OperationPageLoader: ...

    @property
    def statistics(self) -> StatisticsLoader: ...


Info = strawberry.Info[Context, None]
