"""DataLoaders of pages of operations and of statistics. Each collects the requests of one event-loop tick."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from strawberry.dataloader import DataLoader

from subgraphs.analytics import client
from subgraphs.analytics.client import AnalyticsClient
from wallet import loading

OperationPageLoader = DataLoader[client.OperationPageRequest, client.OperationPage]


@dataclass(frozen=True, slots=True)
class StatisticsRequest:
    """Arguments of `AnalyticsClient.get_statistics`."""

    account_id: UUID
    from_: datetime
    to: datetime
    granularity: Literal["HOUR", "DAY", "WEEK", "MONTH"]


StatisticsLoader = DataLoader[StatisticsRequest, client.Statistics]


def operation_page_loader(analytics: AnalyticsClient) -> OperationPageLoader:
    """Create a loader of pages for one request. It loads the pages of a tick with one RPC."""
    return loading.batch_loader(analytics.batch_list_operations)


def statistics_loader(analytics: AnalyticsClient) -> StatisticsLoader:
    """Create a loader of statistics for one request. Equal requests of a tick are one RPC."""

    async def load(request: StatisticsRequest) -> client.Statistics:
        return await analytics.get_statistics(
            request.account_id, from_=request.from_, to=request.to, granularity=request.granularity
        )

    return loading.single_loader(load)
