"""Part of the request context that the resolvers use."""

from typing import Protocol

import strawberry

from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient


class Context(Protocol):
    """gRPC clients that the resolvers take from the request context."""

    @property
    def analytics(self) -> AnalyticsClient: ...

    @property
    def bank(self) -> BankClient: ...


Info = strawberry.Info[Context, None]
