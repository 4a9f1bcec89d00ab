"""Context of one request or WebSocket connection, which resolvers read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gateway.graphql.execution.metrics import OperationSummary
from gateway.graphql.protection.cost import RequestCost
from gateway.graphql.protection.limits import RequestBudget
from gateway.http.batch_charge import charge_batch
from gateway.http.rate_limits import RateLimiter
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.analytics.graph import (
    OperationPageLoader,
    StatisticsLoader,
    operation_page_loader,
    statistics_loader,
)
from subgraphs.bank.client import BankClient
from subgraphs.bank.graph import (
    AccountLoader,
    AccountPageLoader,
    BalanceLoader,
    TransferLoader,
    account_loader,
    account_page_loader,
    balance_loader,
    transfer_loader,
)
from subgraphs.card.client import CardClient
from subgraphs.card.graph import TopUpLoader, TopUpPageLoader, top_up_loader, top_up_page_loader
from subgraphs.identity.client import IdentityClient
from subgraphs.identity.graph import UserLoader, user_loader


@dataclass
class Context:
    """Clients, loaders and counters of one HTTP request or one WebSocket connection. Loaders are created on first use.

    Attributes:
        cost: total cost of the operations.
        operations: summaries of the operations for the request's log line. None on a WebSocket, where each operation
            has its own log line.
        budget: remaining budget of an HTTP request; None before its first operation, and on a WebSocket.
        connection_params: payload of the WebSocket's `connection_init`.
        authorization: values of the `Authorization` headers of the WebSocket's upgrade request.
    """

    bank: BankClient
    analytics: AnalyticsClient
    card: CardClient
    identity: IdentityClient
    rate_limiter: RateLimiter
    cost: RequestCost = field(default_factory=RequestCost)
    operations: list[OperationSummary] | None = None
    budget: RequestBudget | None = None
    connection_params: dict[str, Any] = field(default_factory=dict)
    authorization: Sequence[str] = ()

    async def charge_batch(self, items: int) -> None:
        """Count a batch with so many items as requests of the caller.

        Raises:
            RateLimited: the caller has fewer requests left.
        """
        await charge_batch(self.rate_limiter, items)

    @cached_property
    def accounts(self) -> AccountLoader:
        """Loader of accounts by id."""
        return account_loader(self.bank)

    @cached_property
    def account_pages(self) -> AccountPageLoader:
        """Loader of pages of accounts."""
        return account_page_loader(self.bank)

    @cached_property
    def operation_pages(self) -> OperationPageLoader:
        """Loader of pages of operations."""
        return operation_page_loader(self.analytics)

    @cached_property
    def statistics(self) -> StatisticsLoader:
        """Loader of statistics."""
        return statistics_loader(self.analytics)

    @cached_property
    def balances(self) -> BalanceLoader:
        """Loader of balances after a version or at a time."""
        return balance_loader(self.bank)

    @cached_property
    def transfers(self) -> TransferLoader:
        """Loader of transfers by id."""
        return transfer_loader(self.bank)

    @cached_property
    def top_ups(self) -> TopUpLoader:
        """Loader of top-ups by id."""
        return top_up_loader(self.card)

    @cached_property
    def top_up_pages(self) -> TopUpPageLoader:
        """Loader of pages of top-ups."""
        return top_up_page_loader(self.card)

    @cached_property
    def users(self) -> UserLoader:
        """Loader of users by id."""
        return user_loader(self.identity)
