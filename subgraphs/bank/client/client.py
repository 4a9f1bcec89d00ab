"""The bank as its callers see it: typed values in and out, typed errors."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from kit.rpc import converters
from kit.rpc.channel import ClientLimits, RpcClient, open_channel
from kit.rpc.status import from_status
from kit.rpc.tls import TLS
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from wallet.errors import WalletError
from wallet.money import Money

SERVICE: Final = bank_pb2.DESCRIPTOR.services_by_name["BankService"].full_name

_READS: Final = (
    "GetBalance",
    "GetTransfer",
    "BatchGetAccounts",
    "BatchGetTransfers",
    "ListAccounts",
    "ListAccountVersions",
    "ListEvents",
)
_WHAT: Final = "the bank"
_KINDS: Final[dict[int, Literal["TRANSFER", "DEPOSIT"]]] = {
    bank_pb2.TRANSFER_KIND_TRANSFER: "TRANSFER",
    bank_pb2.TRANSFER_KIND_DEPOSIT: "DEPOSIT",
}
_STATUSES: Final[dict[int, Literal["OPEN", "CLOSED"]]] = {
    bank_pb2.ACCOUNT_STATUS_OPEN: "OPEN",
    bank_pb2.ACCOUNT_STATUS_CLOSED: "CLOSED",
}


@dataclass(frozen=True, slots=True)
class Account:
    """An account now. `version` grows by one with every operation; `owner_id` is empty where nobody owns it."""

    id: UUID
    owner_id: str
    balance: Money
    version: int
    created_at: datetime
    updated_at: datetime
    status: Literal["OPEN", "CLOSED"]


@dataclass(frozen=True, slots=True)
class AccountPage:
    """Accounts in id order, and whether there are more."""

    accounts: tuple[Account, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Order:
    """A transfer that is asked for, once for its key."""

    sender_id: UUID
    recipient_id: UUID
    amount: Money
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer that is done, or a deposit: one from a clearing account."""

    id: UUID
    kind: Literal["TRANSFER", "DEPOSIT"]
    sender_id: UUID
    recipient_id: UUID
    amount: Money
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Posting:
    """What an operation did to one account: the version and the balance that it left."""

    account_id: UUID
    version: int
    balance_after: Money


@dataclass(frozen=True, slots=True)
class Receipt:
    """A transfer with the caller's own side of it."""

    transfer: Transfer
    posting: Posting


@dataclass(frozen=True, slots=True)
class Balance:
    """A balance and the version of the account that it belongs to."""

    amount: Money
    version: int


@dataclass(frozen=True, slots=True)
class Event:
    """An operation, whole, as the topic tells it."""

    transfer: Transfer
    sender: Posting
    recipient: Posting
    descriptor: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AccountVersion:
    """How many operations an account has had."""

    account_id: UUID
    version: int


class BankClient:
    """Calls the bank in the name of the current call's caller (`kit.rpc.request_context.current`).

    Every method raises the `WalletError` that the bank refused it with, Unavailable when the bank does not answer and
    DeadlineExceeded when it does not in time. After these two the outcome of a call with a key is unknown, and calling
    again with the same key is safe; reads are always safe to call again.
    """

    def __init__(self, stub: "bank_pb2_grpc.BankServiceAsyncStub", bounds: ClientLimits = ClientLimits()) -> None:
        self._stub = stub
        self._calls = RpcClient(_WHAT, bounds)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, target: str, *, bounds: ClientLimits = ClientLimits(), tls: TLS | None = None
    ) -> AsyncIterator["BankClient"]:
        """A client of the bank at a gRPC target; connects when first called."""
        async with open_channel(target, SERVICE, _READS, tls, name="bank") as opened:
            yield cls(bank_pb2_grpc.BankServiceStub(opened), bounds)

    async def transfer(self, sender_id: UUID, recipient_id: UUID, amount: Money, idempotency_key: str) -> Receipt:
        """Moves money once per key; the receipt carries the sender's side."""
        request = _request(Order(sender_id, recipient_id, amount, idempotency_key))
        response = await self._calls.unary(self._stub.TransferMoney, request)
        return _receipt(response)

    async def transfer_all(self, orders: Sequence[Order]) -> list[Receipt | WalletError]:
        """Up to 8,000 transfers, each on its own: what came of each, in their order."""
        request = bank_pb2.BatchTransferMoneyRequest(transfers=map(_request, orders))
        response = await self._calls.unary(self._stub.BatchTransferMoney, request)
        return [
            _receipt(result.value) if result.HasField("value") else from_status(result.error)
            for result in response.results
        ]

    async def deposit(
        self,
        account_id: UUID,
        amount: Money,
        idempotency_key: str,
        descriptor: Mapping[str, str],
    ) -> Receipt:
        """Credits the account once per key, for services; the receipt carries the account's side."""
        request = bank_pb2.DepositMoneyRequest(
            account_id=str(account_id),
            amount=converters.money_to_proto(amount),
            idempotency_key=idempotency_key,
            descriptor=dict(descriptor),
        )
        response = await self._calls.unary(self._stub.DepositMoney, request)
        balance = converters.money_from_proto(response.account_balance)
        return Receipt(_transfer(response.transfer), Posting(account_id, response.account_version, balance))

    async def balance(self, account_id: UUID) -> Balance:
        """The balance now."""
        request = bank_pb2.GetBalanceRequest(account_id=str(account_id))
        response = await self._calls.unary(self._stub.GetBalance, request)
        return Balance(converters.money_from_proto(response.balance), response.version)

    async def get_transfer(self, transfer_id: UUID) -> Transfer:
        """One transfer from or to an account of the caller."""
        request = bank_pb2.GetTransferRequest(id=str(transfer_id))
        response = await self._calls.unary(self._stub.GetTransfer, request)
        return _transfer(response.transfer)

    async def transfers(self, ids: Sequence[UUID]) -> dict[UUID, Transfer | WalletError]:
        """Each transfer, or why the caller does not get it."""
        request = bank_pb2.BatchGetTransfersRequest(ids=map(str, ids))
        response = await self._calls.unary(self._stub.BatchGetTransfers, request)
        return {
            UUID(result.key): _transfer(result.value) if result.HasField("value") else from_status(result.error)
            for result in response.results
        }

    async def accounts(self, ids: Sequence[UUID]) -> dict[UUID, Account | WalletError]:
        """Each account, or why the caller does not get it."""
        request = bank_pb2.BatchGetAccountsRequest(ids=map(str, ids))
        response = await self._calls.unary(self._stub.BatchGetAccounts, request)
        return {
            UUID(result.key): _account(result.value) if result.HasField("value") else from_status(result.error)
            for result in response.results
        }

    async def account(self, account_id: UUID) -> Account:
        """One account."""
        found = (await self.accounts([account_id]))[account_id]
        if isinstance(found, WalletError):
            raise found
        return found

    async def open_account(self, currency: str, idempotency_key: str, owner_id: str = "") -> Account:
        """A new and empty account, once per key; an admin names its owner."""
        request = bank_pb2.OpenAccountRequest(currency=currency, owner_id=owner_id, idempotency_key=idempotency_key)
        response = await self._calls.unary(self._stub.OpenAccount, request)
        return _account(response.account)

    async def close_account(self, account_id: UUID) -> Account:
        """The account, closed for good. Safe to call again."""
        request = bank_pb2.CloseAccountRequest(account_id=str(account_id))
        response = await self._calls.unary(self._stub.CloseAccount, request)
        return _account(response.account)

    async def list_accounts(self, owner_id: str = "", *, limit: int = 1_000, after: UUID | None = None) -> AccountPage:
        """The accounts of an owner, closed ones too, in id order: so many after one of them. They are the caller's,
        unless whoever reads all names another owner.
        """
        request = bank_pb2.ListAccountsRequest(
            owner_id=owner_id, page_size=limit + 1, after_account_id=str(after or "")
        )
        response = await self._calls.unary(self._stub.ListAccounts, request)
        accounts = tuple(map(_account, response.accounts))
        return AccountPage(accounts[:limit], has_more=len(accounts) > limit)

    async def account_versions(self, page_size: int = 1_000) -> AsyncIterator[list[AccountVersion]]:
        """Every account's version, page by page, for services."""
        after = ""
        while True:
            request = bank_pb2.ListAccountVersionsRequest(page_size=page_size, after_account_id=after)
            page = await self._calls.unary(self._stub.ListAccountVersions, request)
            yield [AccountVersion(UUID(account.account_id), account.version) for account in page.accounts]
            after = page.next_after_account_id
            if not after:
                return

    async def events(self, account_id: UUID, after_version: int, page_size: int = 1_000) -> list[Event]:
        """The account's next operations after a version, in order, for services; fewer than a page means no more."""
        request = bank_pb2.ListEventsRequest(
            account_id=str(account_id),
            after_version=after_version,
            page_size=page_size,
        )
        response = await self._calls.unary(self._stub.ListEvents, request)
        return [
            Event(_transfer(event.transfer), _posting(event.sender), _posting(event.recipient), dict(event.descriptor))
            for event in response.events
        ]


def _account(message: bank_pb2.Account) -> Account:
    return Account(
        UUID(message.id),
        message.owner_id,
        converters.money_from_proto(message.balance),
        message.version,
        converters.time_from_proto(message.created_at),
        converters.time_from_proto(message.updated_at),
        _STATUSES[message.status],
    )


def _request(order: Order) -> bank_pb2.TransferMoneyRequest:
    return bank_pb2.TransferMoneyRequest(
        sender_id=str(order.sender_id),
        recipient_id=str(order.recipient_id),
        amount=converters.money_to_proto(order.amount),
        idempotency_key=order.idempotency_key,
    )


def _receipt(message: bank_pb2.TransferMoneyResponse) -> Receipt:
    balance = converters.money_from_proto(message.sender_balance)
    transfer = _transfer(message.transfer)
    return Receipt(transfer, Posting(transfer.sender_id, message.sender_version, balance))


def _transfer(message: bank_pb2.Transfer) -> Transfer:
    return Transfer(
        UUID(message.id),
        _KINDS[message.kind],
        UUID(message.sender_id),
        UUID(message.recipient_id),
        converters.money_from_proto(message.amount),
        converters.time_from_proto(message.created_at),
    )


def _posting(message: bank_pb2.Posting) -> Posting:
    return Posting(UUID(message.account_id), message.version, converters.money_from_proto(message.balance_after))
