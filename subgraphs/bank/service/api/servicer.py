"""Proto to domain and back, nothing else."""

# ruff: noqa: D102, N802  the methods are bank.proto's, which names and documents them
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import grpc
from google.type.money_pb2 import Money as MoneyMessage

from kit.rpc import converters, request_context, status
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from subgraphs.bank.service.application.service import Bank
from subgraphs.bank.service.domain.model import Account, Kind, Order, Outcome, Posting, Status, Transfer
from wallet import inputs
from wallet.errors import AccountNotFound, InvalidInput, TransferNotFound
from wallet.money import DEFAULT_CURRENCY, Money, MoneyError

SERVICE: Final = bank_pb2.DESCRIPTOR.services_by_name["BankService"].full_name

_PAGE_SIZE: Final = 1_000
_MAX_PAGE_SIZE: Final = 10_000
_MAX_KEYS: Final = 1_000
_MAX_ITEMS: Final = 8_000
_KINDS: Final = {
    Kind.TRANSFER: bank_pb2.TRANSFER_KIND_TRANSFER,
    Kind.DEPOSIT: bank_pb2.TRANSFER_KIND_DEPOSIT,
}
_STATUSES: Final = {
    Status.OPEN: bank_pb2.ACCOUNT_STATUS_OPEN,
    Status.CLOSED: bank_pb2.ACCOUNT_STATUS_CLOSED,
}


class BankServicer(bank_pb2_grpc.BankServiceServicer):
    """`bank.proto`, served. Errors are raised as they are; `kit.rpc.server` makes statuses of them."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the service to a server."""
        bank_pb2_grpc.add_BankServiceServicer_to_server(self, server)

    async def TransferMoney(
        self,
        request: bank_pb2.TransferMoneyRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.TransferMoneyResponse:
        return _made(await self._bank.transfer(request_context.current_principal(), _order(request)))

    async def BatchTransferMoney(
        self,
        request: bank_pb2.BatchTransferMoneyRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.BatchTransferMoneyResponse:
        if len(request.transfers) > _MAX_ITEMS:
            raise InvalidInput.for_field("transfers", f"must be at most {_MAX_ITEMS}")
        outcomes = await self._bank.transfer_all(
            request_context.current_principal(), [_try_order(item) for item in request.transfers]
        )
        return bank_pb2.BatchTransferMoneyResponse(results=[_result(outcome) for outcome in outcomes])

    async def DepositMoney(
        self,
        request: bank_pb2.DepositMoneyRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.DepositMoneyResponse:
        transfer = await self._bank.deposit(
            _id("accountId", request.account_id),
            _amount(request.amount),
            request.idempotency_key,
            dict(request.descriptor),
        )
        return bank_pb2.DepositMoneyResponse(
            transfer=_transfer(transfer),
            account_version=transfer.recipient.version,
            account_balance=converters.money_to_proto(transfer.recipient.balance_after),
        )

    async def GetBalance(
        self,
        request: bank_pb2.GetBalanceRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.GetBalanceResponse:
        account = await self._bank.account(request_context.current_principal(), _id("accountId", request.account_id))
        return bank_pb2.GetBalanceResponse(balance=converters.money_to_proto(account.balance), version=account.version)

    async def GetTransfer(
        self,
        request: bank_pb2.GetTransferRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.GetTransferResponse:
        transfer = await self._bank.get_transfer(request_context.current_principal(), _id("id", request.id))
        return bank_pb2.GetTransferResponse(transfer=_transfer(transfer))

    async def BatchGetAccounts(
        self,
        request: bank_pb2.BatchGetAccountsRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.BatchGetAccountsResponse:
        keys = _keys(request.ids)
        found = await self._bank.accounts(request_context.current_principal(), list(keys.values()))
        return bank_pb2.BatchGetAccountsResponse(
            results=[
                bank_pb2.BatchGetAccountsResponse.Result(key=key, value=_account(found[id_]))
                if id_ in found
                else bank_pb2.BatchGetAccountsResponse.Result(
                    key=key,
                    error=status.error_to_status(AccountNotFound(str(id_))),
                )
                for key, id_ in keys.items()
            ],
        )

    async def BatchGetTransfers(
        self,
        request: bank_pb2.BatchGetTransfersRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.BatchGetTransfersResponse:
        keys = _keys(request.ids)
        found = await self._bank.transfers(request_context.current_principal(), list(keys.values()))
        return bank_pb2.BatchGetTransfersResponse(
            results=[
                bank_pb2.BatchGetTransfersResponse.Result(key=key, value=_transfer(found[id_]))
                if id_ in found
                else bank_pb2.BatchGetTransfersResponse.Result(
                    key=key,
                    error=status.error_to_status(TransferNotFound(str(id_))),
                )
                for key, id_ in keys.items()
            ],
        )

    async def OpenAccount(
        self,
        request: bank_pb2.OpenAccountRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.OpenAccountResponse:
        account = await self._bank.open_account(
            request_context.current_principal(),
            request.owner_id,
            request.currency or DEFAULT_CURRENCY,
            request.idempotency_key,
        )
        return bank_pb2.OpenAccountResponse(account=_account(account))

    async def CloseAccount(
        self,
        request: bank_pb2.CloseAccountRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.CloseAccountResponse:
        account = await self._bank.close_account(
            request_context.current_principal(), _id("accountId", request.account_id)
        )
        return bank_pb2.CloseAccountResponse(account=_account(account))

    async def ListAccounts(
        self,
        request: bank_pb2.ListAccountsRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.ListAccountsResponse:
        limit = _page_size(request.page_size)
        after = _id("afterAccountId", request.after_account_id) if request.after_account_id else None
        accounts = await self._bank.list_accounts(request_context.current_principal(), request.owner_id, after, limit)
        return bank_pb2.ListAccountsResponse(
            accounts=[_account(account) for account in accounts],
            next_after_account_id=str(accounts[-1].id) if len(accounts) == limit else "",
        )

    async def ListAccountVersions(
        self,
        request: bank_pb2.ListAccountVersionsRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.ListAccountVersionsResponse:
        limit = _page_size(request.page_size)
        after = _id("afterAccountId", request.after_account_id) if request.after_account_id else None
        versions = await self._bank.versions(after, limit)
        return bank_pb2.ListAccountVersionsResponse(
            accounts=[
                bank_pb2.ListAccountVersionsResponse.AccountVersion(account_id=str(id_), version=version)
                for id_, version in versions
            ],
            next_after_account_id=str(versions[-1][0]) if len(versions) == limit else "",
        )

    async def ListEvents(
        self,
        request: bank_pb2.ListEventsRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.ListEventsResponse:
        transfers = await self._bank.transfers_of(
            _id("accountId", request.account_id),
            request.after_version,
            _page_size(request.page_size),
        )
        return bank_pb2.ListEventsResponse(
            events=[
                bank_pb2.Event(
                    transfer=_transfer(transfer),
                    sender=_posting(transfer.sender),
                    recipient=_posting(transfer.recipient),
                    descriptor=dict(transfer.descriptor),
                )
                for transfer in transfers
            ],
        )


def _id(field: str, text: str) -> UUID:
    try:
        return inputs.parse_uuid(text)
    except ValueError as error:
        raise InvalidInput.for_field(field, str(error)) from None


def _keys(ids: Sequence[str]) -> dict[str, UUID]:
    """The ids by the keys that they were asked for by, each once."""
    if len(ids) > _MAX_KEYS:
        raise InvalidInput.for_field("ids", f"must be at most {_MAX_KEYS}")
    return {key: _id("ids", key) for key in ids}


def _amount(message: MoneyMessage) -> Money:
    try:
        return converters.money_from_proto(message)
    except MoneyError as error:
        raise InvalidInput.for_field("amount", str(error)) from None


def _page_size(requested: int) -> int:
    if not 0 <= requested <= _MAX_PAGE_SIZE:
        raise InvalidInput.for_field("pageSize", f"must be 1 to {_MAX_PAGE_SIZE}, or 0 for {_PAGE_SIZE}")
    return requested or _PAGE_SIZE


def _account(account: Account) -> bank_pb2.Account:
    return bank_pb2.Account(
        id=str(account.id),
        owner_id=account.owner_id or "",
        balance=converters.money_to_proto(account.balance),
        version=account.version,
        created_at=converters.time_to_proto(account.created_at),
        updated_at=converters.time_to_proto(account.updated_at),
        status=_STATUSES[account.status],
    )


def _order(request: bank_pb2.TransferMoneyRequest) -> Order:
    return Order(
        _id("senderId", request.sender_id),
        _id("recipientId", request.recipient_id),
        _amount(request.amount),
        request.idempotency_key,
    )


def _try_order(request: bank_pb2.TransferMoneyRequest) -> Order | InvalidInput:
    try:
        return _order(request)
    except InvalidInput as refusal:
        return refusal


def _made(transfer: Transfer) -> bank_pb2.TransferMoneyResponse:
    return bank_pb2.TransferMoneyResponse(
        transfer=_transfer(transfer),
        sender_version=transfer.sender.version,
        sender_balance=converters.money_to_proto(transfer.sender.balance_after),
    )


def _result(outcome: Outcome) -> bank_pb2.BatchTransferMoneyResponse.Result:
    if isinstance(outcome, Transfer):
        return bank_pb2.BatchTransferMoneyResponse.Result(value=_made(outcome))
    return bank_pb2.BatchTransferMoneyResponse.Result(error=status.error_to_status(outcome))


def _transfer(transfer: Transfer) -> bank_pb2.Transfer:
    return bank_pb2.Transfer(
        id=str(transfer.id),
        kind=_KINDS[transfer.kind],
        sender_id=str(transfer.sender.account_id),
        recipient_id=str(transfer.recipient.account_id),
        amount=converters.money_to_proto(transfer.amount),
        created_at=converters.time_to_proto(transfer.created_at),
    )


def _posting(posting: Posting) -> bank_pb2.Posting:
    return bank_pb2.Posting(
        account_id=str(posting.account_id),
        version=posting.version,
        balance_after=converters.money_to_proto(posting.balance_after),
    )
