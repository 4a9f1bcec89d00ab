"""Fake clients of the services that respond immediately, with lists of any length up to the maximum."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from gateway.graphql.execution.context import Context
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from subgraphs.analytics import client as analytics
from subgraphs.analytics.service.domain.statistics import Granularity, StatisticsRange
from subgraphs.bank import client as bank
from subgraphs.card import client as card
from subgraphs.identity import client as identity
from tests.operations import new_operation
from wallet.money import Money

ID = UUID("123e4567-e89b-12d3-a456-426614174000")
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MONEY = Money.parse("10.00")
TURNOVER = analytics.Turnover(1, MONEY)


@dataclass
class FullServices:
    """All four clients in one. Every account, transfer, top-up and user exists.

    Attributes:
        choose_length: returns the length of a list; its parameter is the maximum. By default all lists are full.
        without: fields of the accounts and top-ups that are null.
        rows: number of rows of all pages and statistics so far.
        pages: number of pages so far.
        filter_bytes: bytes of all filters so far, repeated types included.
    """

    choose_length: Callable[[int], int] = field(default=lambda limit: limit)
    without: frozenset[str] = frozenset()
    rows: int = 0
    pages: int = 0
    filter_bytes: int = 0

    def context(self, rate_limiter: RateLimiter | None = None) -> Context:
        """Return the context of a request to these services."""
        services: Any = self
        return Context(
            services, services, services, services, rate_limiter or RateLimiter(RateLimitOptions(is_on=False))
        )

    async def batch_get_accounts(self, ids: Sequence[UUID]) -> Mapping[UUID, bank.Account]:
        return {each: self._account(each) for each in ids}

    async def list_accounts(
        self, _: str, *, limit: int, after: UUID | None, before: UUID | None = None
    ) -> bank.AccountPage:
        ids = (UUID(int=ID.int + number) for number in range(self._choose_rows(limit)))
        return bank.AccountPage(tuple(map(self._account, ids)), has_more=True)

    async def batch_get_balances_at(
        self, requests: Sequence[bank.BalanceRequest]
    ) -> Mapping[bank.BalanceRequest, bank.BalanceAt]:
        return {each: bank.BalanceAt(MONEY, 1, TIME) for each in requests}

    async def batch_get_transfers(self, ids: Sequence[UUID]) -> Mapping[UUID, bank.Transfer]:
        return {each: bank.Transfer(each, "DEPOSIT", ID, ID, MONEY, TIME) for each in ids}

    async def list_transfers(self, *_: Any, limit: int, after: UUID | None) -> bank.TransferPage:
        page = tuple(bank.Transfer(ID, "TRANSFER", ID, ID, MONEY, TIME) for _ in range(self._choose_rows(limit)))
        return bank.TransferPage(page, has_more=True)

    async def list_account_changes(self, _: UUID, *, limit: int) -> list[bank.AccountChange]:
        change = bank.AccountChange(1, "THAW", "users|olga", TIME, "found", {"status": "OPEN"}, {"status": "OPEN"})
        return [change] * self._choose_rows(limit)

    async def batch_get_top_ups(self, ids: Sequence[UUID]) -> Mapping[UUID, card.TopUp]:
        return {each: self._top_up() for each in ids}

    async def batch_list_top_ups(
        self, requests: Sequence[card.TopUpPageRequest]
    ) -> Mapping[card.TopUpPageRequest, card.TopUpPage]:
        return {each: self._top_up_page(each.limit) for each in requests}

    async def batch_get_users(self, ids: Sequence[str]) -> Mapping[str, identity.User]:
        return {each: identity.User(id=each, username="alice", role="CUSTOMER", created_at=TIME) for each in ids}

    async def batch_list_operations(
        self, requests: Sequence[analytics.OperationPageRequest]
    ) -> Mapping[analytics.OperationPageRequest, analytics.OperationPage]:
        return {each: self._operation_page(each) for each in requests}

    async def get_statistics(
        self, account_id: UUID, *, from_: datetime, to: datetime, granularity: str
    ) -> analytics.Statistics:
        """Return as many buckets as the service. A range that the service would refuse fails the test."""
        range_ = StatisticsRange(from_, to, Granularity(granularity))
        assert not range_.violations()
        buckets = tuple(self._bucket(start, end) for start, end in range_.bounds())
        self.rows += len(buckets)
        return analytics.Statistics(buckets, as_of_version=1, is_complete=True)

    def _top_up_page(self, limit: int) -> card.TopUpPage:
        length = self._choose_rows(limit)
        return card.TopUpPage(tuple(self._top_up() for _ in range(length)), has_older=True, has_newer=False)

    def _operation_page(self, request: analytics.OperationPageRequest) -> analytics.OperationPage:
        filter_ = request.filter
        self.filter_bytes += sum(len(each) for each in filter_.types or ())
        self.filter_bytes += len(filter_.min_amount or "") + len(filter_.max_amount or "")
        operations = tuple(new_operation(number) for number in range(self._choose_rows(request.limit)))
        return analytics.OperationPage(operations, has_older=True, has_newer=False, is_complete=True)

    def _choose_rows(self, limit: int) -> int:
        length = self.choose_length(limit)
        self.rows += length
        self.pages += 1
        return length

    def _account(self, id_: UUID) -> bank.Account:
        owner = "" if "owner" in self.without else "alice"
        return bank.Account(id_, owner, MONEY, 1, TIME, TIME, "OPEN")

    def _top_up(self) -> card.TopUp:
        transfer = None if "transfer" in self.without else ID
        failure = None if "failure" in self.without else "DO_NOT_HONOR"
        visa = card.Card("VISA", "4242")
        return card.TopUp(ID, ID, MONEY, "COMPLETED", visa, failure, transfer, TIME, TIME, 1)

    def _bucket(self, start: datetime, end: datetime) -> analytics.StatisticsBucket:
        kinds = [analytics.TypeTurnover(kind, TURNOVER, TURNOVER) for kind in ("TRANSFER", "TOP_UP")]
        by_type = tuple(kinds[: self.choose_length(2)])
        return analytics.StatisticsBucket(start, end, 2, TURNOVER, TURNOVER, MONEY, MONEY, MONEY, by_type)
