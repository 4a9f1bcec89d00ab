"""Bank with a ledger in memory and a real gRPC servicer."""

import asyncio
import copy
import itertools
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import grpc

from kit.rpc import converters, request_context, status
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from subgraphs.analytics.service.domain.model import Event, OperationType, Posting
from subgraphs.bank.client import SERVICE
from wallet.errors import AccountNotFound, Unavailable, WalletError
from wallet.money import Money

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
CLEARING = UUID(int=1)

__all__ = ["CLEARING", "SERVICE", "START", "FakeBank"]


class FakeBank(bank_pb2_grpc.BankServiceServicer):
    """Bank with the methods that analytics calls; all other methods return UNIMPLEMENTED.

    `calls` counts the calls by method. While `is_down`, calls fail with `outage`. `ListAccountVersions` waits until
    `gate` is set. `is_older` makes it a bank of a release whose `BatchGetAccounts` returns no epoch.
    """

    def __init__(self) -> None:
        self.is_down = False
        self.is_older = False
        self.outage: WalletError = Unavailable("the bank")
        self.epoch = ""
        self.past_epochs: list[str] = []
        self.incarnation = "1/00000001"
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls: Counter[str] = Counter()
        self._owners: dict[UUID, str] = {CLEARING: ""}
        self._balances: Counter[UUID] = Counter()
        self._events: dict[UUID, list[Event]] = {CLEARING: []}
        self._hidden: set[UUID] = set()
        self._clock = itertools.count()

    def register(self, server: grpc.aio.Server) -> None:
        bank_pb2_grpc.add_BankServiceServicer_to_server(self, server)

    def open(self, owner: str = "alice") -> UUID:
        account_id = uuid.uuid4()
        self._owners[account_id] = owner
        self._events[account_id] = []
        return account_id

    def change_owner(self, account_id: UUID, owner: str) -> None:
        """Change the owner of an account."""
        self._owners[account_id] = owner

    def transfer(self, sender: UUID, recipient: UUID, amount: str = "10.00") -> Event:
        money = Money.parse(amount)
        self._balances[sender] -= money.amount  # type: ignore[assignment]  # the amounts are Decimal
        self._balances[recipient] += money.amount  # type: ignore[assignment]
        event = Event(
            uuid.uuid4(),
            OperationType.TOP_UP if sender == CLEARING else OperationType.TRANSFER,
            money,
            self._next_posting(sender),
            self._next_posting(recipient),
            START + timedelta(seconds=next(self._clock)),
        )
        self._events[sender].append(event)
        self._events[recipient].append(event)
        return event

    def hide_operation(self, event: Event) -> None:
        """Stop returning an operation. The versions of its accounts still include the operation."""
        self._hidden.add(event.id)

    def _next_posting(self, account_id: UUID) -> Posting:
        return Posting(account_id, len(self._events[account_id]) + 1, self._balance(account_id))

    def _balance(self, account_id: UUID) -> Money:
        return Money(Decimal(self._balances[account_id]), "RUB")

    def _record_call(self, method: str) -> None:
        self.calls[method] += 1
        if self.is_down:
            raise self.outage

    def _account(self, account_id: UUID) -> bank_pb2.Account:
        caller = request_context.current_principal()
        if account_id not in self._owners or not (caller.can_read_all or self._owners[account_id] == caller.subject):
            raise AccountNotFound(str(account_id))
        return bank_pb2.Account(
            id=str(account_id),
            owner_id=self._owners[account_id],
            balance=converters.money_to_proto(self._balance(account_id)),
            version=len(self._events[account_id]),
            status=bank_pb2.ACCOUNT_STATUS_OPEN,
        )

    async def GetBalance(self, request: bank_pb2.GetBalanceRequest, context: Any) -> bank_pb2.GetBalanceResponse:  # noqa: N802
        self._record_call("GetBalance")
        account = self._account(UUID(request.account_id))
        return bank_pb2.GetBalanceResponse(balance=account.balance, version=account.version, epoch=self.epoch)

    async def BatchGetAccounts(  # noqa: N802
        self, request: bank_pb2.BatchGetAccountsRequest, context: Any
    ) -> bank_pb2.BatchGetAccountsResponse:
        self._record_call("BatchGetAccounts")
        response = bank_pb2.BatchGetAccountsResponse(epoch=None if self.is_older else self.epoch)
        for key in request.ids:
            try:
                response.results.add(key=key, value=self._account(UUID(key)))
            except AccountNotFound as error:
                response.results.add(key=key, error=status.error_to_status(error))
        return response

    async def ListAccountVersions(  # noqa: N802
        self, request: bank_pb2.ListAccountVersionsRequest, context: Any
    ) -> bank_pb2.ListAccountVersionsResponse:
        self._record_call("ListAccountVersions")
        await self.gate.wait()
        ids = sorted(str(account_id) for account_id in self._owners)
        page = [id_ for id_ in ids if id_ > request.after_account_id][: request.page_size]
        response = bank_pb2.ListAccountVersionsResponse(
            next_after_account_id=page[-1] if len(page) == request.page_size else "",
        )
        for id_ in page:
            response.accounts.add(account_id=id_, version=len(self._events[UUID(id_)]))
        return response

    async def ListEvents(self, request: bank_pb2.ListEventsRequest, context: Any) -> bank_pb2.ListEventsResponse:  # noqa: N802
        self._record_call("ListEvents")
        later = self._events[UUID(request.account_id)][request.after_version :]
        events = [event for event in later if event.id not in self._hidden]
        return bank_pb2.ListEventsResponse(events=map(_event_to_proto, events[: request.page_size]), epoch=self.epoch)

    async def VerifyHistory(  # noqa: N802
        self, request: bank_pb2.VerifyHistoryRequest, context: Any
    ) -> bank_pb2.VerifyHistoryResponse:
        self._record_call("VerifyHistory")
        is_contradicted = not all(map(self._has, request.postings))
        if is_contradicted if self.epoch == request.epoch else self.epoch in request.past_epochs:
            self.begin_epoch()
        known = {self.epoch, *self.past_epochs}
        self.past_epochs += [each for each in (*request.past_epochs, request.epoch) if each not in known]
        return bank_pb2.VerifyHistoryResponse(
            epoch=self.epoch, incarnation=self.incarnation, past_epochs=self.past_epochs
        )

    def _has(self, held: bank_pb2.VerifyHistoryRequest.HeldPosting) -> bool:
        events = self._events.get(UUID(held.account_id), [])
        return 0 < held.version <= len(events) and str(events[held.version - 1].id) == held.transfer_id

    def begin_epoch(self) -> None:
        """Begin a new epoch, as `wallet ledger restored` does."""
        self.past_epochs.append(self.epoch)
        self.epoch = str(uuid.uuid4())

    def backup(self) -> tuple[Any, ...]:
        """Return a backup of the ledger."""
        return copy.deepcopy((self._balances, self._events, self.past_epochs)), self.epoch

    def restore(self, backup: tuple[Any, ...]) -> None:
        """Restore the ledger from a backup, without a new epoch."""
        (self._balances, self._events, self.past_epochs), self.epoch = copy.deepcopy(backup)


def _event_to_proto(event: Event) -> bank_pb2.Event:
    is_transfer = event.type is OperationType.TRANSFER
    return bank_pb2.Event(
        transfer=bank_pb2.Transfer(
            id=str(event.id),
            kind=bank_pb2.TRANSFER_KIND_TRANSFER if is_transfer else bank_pb2.TRANSFER_KIND_DEPOSIT,
            sender_id=str(event.sender.account_id),
            recipient_id=str(event.recipient.account_id),
            amount=converters.money_to_proto(event.amount),
            created_at=converters.time_to_proto(event.occurred_at),
        ),
        sender=_posting_to_proto(event.sender),
        recipient=_posting_to_proto(event.recipient),
    )


def _posting_to_proto(posting: Posting) -> bank_pb2.Posting:
    return bank_pb2.Posting(
        account_id=str(posting.account_id),
        version=posting.version,
        balance_after=converters.money_to_proto(posting.balance_after),
    )
